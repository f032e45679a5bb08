"""What a trained FedMPT's conditions are worth: parts of its predictions, scores without each, tables and a picture."""
