"""Language models that are asked for texts: any OpenAI-compatible endpoint, a model file, or a person with a chat."""
