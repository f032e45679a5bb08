"""CSV files, as people and programs get them wrong."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from malformed_case import Case, Content

PICTURES: Mapping[str, Content] = {"a.png": None, "b.png": None, "c d.png": None}
SHOWN = {"a.png": "cat|dog", "b.png": "", "c d.png": "dog"}


def table(content: Content, *, refused: str = "", labels: Mapping[str, str] = SHOWN, **rest: object) -> Case:
    """`PICTURES` with a ``labels.csv``."""
    files = {**PICTURES, **rest.pop("files", {}), "labels.csv": content}  # type: ignore[dict-item]
    return Case(files, refused=rf"labels\.csv{refused}" if refused else "", labels=labels, **rest)  # type: ignore[arg-type]


def named(name: str, written: str = "") -> Case:
    """A picture with an odd name, as the file has it and as the table writes it."""
    files: dict[str, Content] = {
        name: None,
        "b.png": None,
        "labels.csv": f'path,labels\n"{written or name}",cat\nb.png,dog\n',
    }
    return Case(files, labels={name: "cat", "b.png": "dog"})


GOOD = "path,labels\na.png,cat|dog\nb.png,\nc d.png,dog\n"
DECOMPOSED, COMPOSED = unicodedata.normalize("NFD", "été.png"), unicodedata.normalize("NFC", "été.png")

TABLES: Mapping[str, Case] = {
    "csv plain": table(GOOD),
    "csv byte order mark": table("\ufeff" + GOOD),
    "csv CRLF": table(GOOD.replace("\n", "\r\n")),
    "csv CR only": table(GOOD.replace("\n", "\r")),
    "csv mixed line ends": table("path,labels\r\na.png,cat|dog\nb.png,\rc d.png,dog"),
    "csv all quoted": table('"path","labels"\n"a.png","cat|dog"\n"b.png",""\n"c d.png","dog"\n'),
    "csv quotes within quotes": table(
        'path,labels\na.png,"the ""big"" cat"\nb.png,\nc d.png,dog\n',
        labels={"a.png": 'the "big" cat', "b.png": "", "c d.png": "dog"},
    ),
    "csv label of several words": table(
        "path,labels\na.png,fire engine |dog\nb.png,\nc d.png, fire   engine\n",
        labels={"a.png": "fire engine|dog", "b.png": "", "c d.png": "fire engine"},
    ),
    "csv semicolons of a spreadsheet": table("path;labels\na.png;cat|dog\nb.png;\nc d.png;dog\n"),
    "csv separator line of a spreadsheet": table("sep=;\npath;labels\na.png;cat|dog\nb.png;\nc d.png;dog\n"),
    "csv tabs": table(GOOD.replace(",", "\t")),
    "csv row numbers of a data frame": table(",path,labels\n0,a.png,cat|dog\n1,b.png,\n2,c d.png,dog\n"),
    "csv blank lines": table("\n\n" + GOOD.replace("\n", "\n\n")),
    "csv empty last columns": table("path,labels,,\na.png,cat|dog,,\nb.png,,,\nc d.png,dog,,\n"),
    "csv line separator within a label": table(
        "path,labels\na.png,cat\u2028|dog\nb.png,\nc d.png,dog\n",
    ),
    "csv decomposed letters in labels": table(
        "path,labels\na.png,pâté\nb.png,pa\u0302te\u0301\nc d.png,\n",
        labels={"a.png": "pâté", "b.png": "pâté", "c d.png": ""},
    ),
    "csv emoji": table(
        "path,labels\na.png,🐈|🐕\nb.png,\nc d.png,🐕\n", labels={"a.png": "🐈|🐕", "b.png": "", "c d.png": "🐕"}
    ),
    "csv formula": table(
        'path,labels\na.png,"=HYPERLINK(1)"\nb.png,\nc d.png,\n',
        labels={"a.png": "=HYPERLINK(1)", "b.png": "", "c d.png": ""},
    ),
    "csv column a class": table("path,cat,dog\na.png,1,1\nb.png,0,0\nc d.png,0,1\n"),
    "csv column a class with unknown": table(
        "path,cat,dog\na.png,1,\nb.png,-1,0\nc d.png,0,1\n",
        labels={"a.png": "cat|?dog", "b.png": "?cat", "c d.png": "dog"},
    ),
    "csv column a class with points": table("path,cat,dog\na.png,1.0,1\nb.png,0.0,0\nc d.png,0.0,1\n"),
    "csv given split": table("path,labels,split\na.png,cat|dog,TRAIN\nb.png,,valid\nc d.png,dog, train\n"),
    "csv enormous but sound cell": table(f"path,labels,note\na.png,cat|dog,{'x' * 200_000}\nb.png,,\nc d.png,dog,\n"),
    "csv empty": table("", refused=" is empty"),
    "csv blanks": table(" \n\t\n", refused=" is empty"),
    "csv header only": table("path,labels\n", refused=" lists no images"),
    "csv no header": table("a.png,cat\nb.png,dog\n", refused=", line 1: no column is called path"),
    "csv header twice": table("path,path,labels\na.png,a.png,cat\n", refused=", line 1: column 'path' is there twice"),
    "csv no labels": table("path,size\na.png,12\nb.png,44\n", refused=": no column labels"),
    "csv ragged short": table("path,labels,split\na.png,cat\n", refused=", line 2: 2 cells, the header has 3"),
    "csv ragged long": table("path,labels\na.png,cat\nb.png,cat,dog\n", refused=", line 3: 3 cells, the header has 2"),
    "csv open quote": table('path,labels\na.png,"cat\nb.png,dog\n', refused=", line 3: unexpected end of data"),
    "csv text after a quote": table('path,labels\n"a.png"x,cat\n', refused=", line 2: ',' expected after"),
    "csv zero byte": table("path,labels\na.png,cat\nb.png,d\0og\n", refused=", line 3: a zero byte"),
    "csv latin-1": table("path,labels\na.png,pâté\n".encode("latin-1"), refused=", line 2: byte .* is not UTF-8"),
    "csv UTF-16": table("path,labels\na.png,cat\n".encode("utf-16"), refused=" is UTF-16 text; save it as UTF-8"),
    "csv that is a picture": table(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", refused=", line 1: byte .* is not UTF-8"),
    "csv that is a web page": table("<!DOCTYPE html>\n<html></html>\n", refused=", line 1: no column is called path"),
    "csv that is JSON": table('{"path": "a.png"}\n', refused=", line 1: no column is called path"),
    "csv enormous cell": table(f"path,labels\na.png,{'x' * 1_100_000}\n", refused=", line 2: field larger than"),
    "csv label NaN": table("path,labels\na.png,cat\nb.png,NaN\n", refused=", line 3: label 'NaN' stands for a missing"),
    "csv label None": table("path,labels\na.png,cat\nb.png,None\n", refused=", line 3: label 'None' stands for a miss"),
    "csv cell NaN": table("path,cat\na.png,1\nb.png,0\nc d.png,nan\n", refused=", line 4: 'cat' is 'nan'"),
    "csv cell of an enormous number": table(
        f"path,cat\na.png,1\nb.png,0\nc d.png,{'9' * 5000}\n", refused=r", line 4: 'cat' is '999.*\.\.\."
    ),
    "csv cell two": table("path,cat\na.png,1\nb.png,0\nc d.png,2\n", refused=", line 4: 'cat' is '2'"),
    "csv label in two cases": table(
        "path,labels\na.png,cat\nb.png,CAT\n", refused=", line 3: class 'CAT' is written 'cat'"
    ),
    "csv invisible letter": table("path,labels\na.png,cat\nb.png,c\u200bat\n", refused=r", line 3: class .*U\+200B"),
    "csv right-to-left override": table("path,labels\na.png,\u202ecat\n", refused=r", line 2: class .*U\+202E"),
    "csv two separators": table(
        "path,labels\na.png,cat|dog\nb.png,cat;dog\n", refused=", line 3: labels 'cat;dog' hold"
    ),
    "csv comma within a cell": table(
        'path,labels\na.png,"cat, dog"\n', refused=", line 2: labels 'cat, dog' hold a comma"
    ),
    "csv unknown split": table(
        "path,labels,split\na.png,cat,tarin\n", refused=", line 2: split is 'tarin'; did you mean"
    ),
    "csv unknown class": table(
        "path,labels\na.png,cat\nb.png,dgo\n",
        refused=", line 3: class 'dgo' is not in .*; did you mean 'dog'",
        options={"classes": "cat\ndog\n"},
    ),
    "csv path twice": table("path,labels\na.png,cat\na.png,dog\n", refused=", line 3: .*a.png' is listed twice"),
    "csv path twice in other words": table(
        "path,labels\na.png,cat\n.//a.png,dog\n", refused=", line 3: .*listed twice"
    ),
    "csv path in both splits": table(
        "path,labels,split\na.png,cat,train\na.png,cat,test\n", refused=", line 3: .*once for test, once for train"
    ),
    "csv missing picture": table("path,labels\na.png,cat\nx.png,cat\n", refused=r", line 3: image 'x\.png' is missing"),
    "csv picture in another case": table(
        "path,labels\nA.PNG,cat\nb.png,cat\n", refused=", line 2: .*did you mean 'a.png'"
    ),
    "csv no name": table("path,labels\na.png,cat\n,dog\n", refused=", line 3: '' is no name of an image"),
    "csv absolute path": table(
        "path,labels\na.png,cat\n/etc/passwd,dog\n", refused=", line 3: '/etc/passwd' leads out"
    ),
    "csv path with drive": table(
        "path,labels\na.png,cat\nC:\\b.png,dog\n", refused=r", line 3: 'C:.*b\.png' leads out"
    ),
    "csv path on a server": table("path,labels\na.png,cat\n\\\\s\\b.png,dog\n", refused=", line 3: .*leads out"),
    "csv path upwards": table(
        "path,labels\na.png,cat\nx/../../b.png,dog\n", refused=", line 3: 'x/../../b.png' leads out"
    ),
    "csv path upwards with backslashes": table(
        "path,labels\na.png,cat\n..\\b.png,dog\n", refused=", line 3: .*leads out"
    ),
    "csv web address": table(
        "path,labels\na.png,cat\nhttps://x.org/b.png,dog\n", refused=", line 3: image .* is missing"
    ),
    "csv enormous name": table(
        f"path,labels\na.png,cat\n{'x' * 9000}.png,dog\n", refused=", line 3: image 'xx.* is missing"
    ),
    "csv deep path": table(
        f"path,labels\na.png,cat\n{'x/' * 4000}b.png,dog\n", refused=", line 3: image 'x/.* is missing"
    ),
    "name with spaces": named(" two  spaces .png"),
    "name with a newline": named("line\nbreak.png"),
    "name with quotes": named('say "x".png', 'say ""x"".png'),
    "name with a comma": named("a,b.png"),
    "name with a bar": named("a|b.png"),
    "name with a backslash": named("a\\b.png"),
    "name with Windows' slashes": named("sub/deep/a.png", "sub\\deep\\a.png"),
    "name with a dot before": named("sub/a.png", "./sub/./a.png"),
    "name with a percent sign": named("100%20.png"),
    "name with emoji": named("🐈.png"),
    "name decomposed in the table": named(COMPOSED, DECOMPOSED),
    "name decomposed on disk": named(DECOMPOSED, COMPOSED),
    "name decomposed in both": named(DECOMPOSED),
    "name reserved on Windows": named("CON.png"),
    "name like an option": named("--help.png"),
    "name like a pattern": named("[a-z]*?.png"),
    "name of a home folder": named("~/a.png"),
    "name hidden": named(".hidden.png"),
    "name without suffix": named("picture"),
    "name with two dots": named("a..b.png"),
    "name that only looks upwards": named("...png"),
}
