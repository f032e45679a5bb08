"""VOC annotations that are wrong, hostile, or odd and right."""

from __future__ import annotations

from collections.abc import Mapping

from malformed_case import Case, Content

SHOWN = {"JPEGImages/a.png": "cat|dog", "JPEGImages/b.png": "cat"}


def thing(name: str, rest: str = "<difficult>0</difficult>") -> str:
    return f"<object><name>{name}</name>{rest}</object>"


def voc(content: Content, refused: str = "", *, shown: str = "cat", files: Mapping[str, Content] | None = None) -> Case:
    """Two images with annotations; ``content`` is the one of ``b``."""
    first = f"<annotation>{thing('dog')}{thing('cat')}</annotation>"
    all_files: dict[str, Content] = {
        "JPEGImages/a.png": None,
        "JPEGImages/b.png": None,
        "Annotations/a.xml": first,
        "Annotations/b.xml": content,
        **(files or {}),
    }
    return Case(all_files, refused=refused and rf"b\.xml{refused}", labels={**SHOWN, "JPEGImages/b.png": shown})


def wrapped(inside: str) -> str:
    return f"<annotation>{inside}</annotation>"


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
BOMB = f'<!DOCTYPE x [<!ENTITY e0 "boom">{ENTITIES}]>{wrapped(thing("&e11;"))}'
BLOWUP = f'<!DOCTYPE x [<!ENTITY e "{"x" * 100_000}">]>{wrapped(thing("&e;" * 10_000))}'
NO_TYPE = r": a document type \('\w+'\) is not allowed"

XML: Mapping[str, Case] = {
    "voc plain": voc(wrapped(thing("cat"))),
    "voc declaration and CRLF": voc(f"<?xml version='1.0' encoding='utf-8'?>\r\n{wrapped(thing('cat'))}\r\n"),
    "voc byte order mark": voc("\ufeff" + wrapped(thing("cat"))),
    "voc latin-1": voc(
        f"<?xml version='1.0' encoding='iso-8859-1'?>{wrapped(thing('pât'))}".encode("latin-1"), shown="pât"
    ),
    "voc UTF-16": voc(f"<?xml version='1.0' encoding='utf-16'?>{wrapped(thing('cat'))}".encode("utf-16")),
    "voc spaces around words": voc(wrapped(thing("\n  cat\n", "<difficult> 0 </difficult>"))),
    "voc marked-up letters": voc(wrapped(thing("c&#97;t"))),
    "voc literal text": voc(wrapped(thing("<![CDATA[cat]]>"))),
    "voc comments": voc(f"<!-- by hand -->{wrapped(thing('<!-- not a dog -->cat'))}"),
    "voc no difficult": voc(wrapped(thing("cat", ""))),
    "voc difficult only": voc(wrapped(thing("cat", "<difficult>1</difficult>")), shown="?cat"),
    "voc difficult and not": voc(wrapped(thing("cat", "<difficult>1</difficult>") + thing("cat"))),
    "voc parts of objects": voc(wrapped(thing("cat", "<part><name>head</name></part>"))),
    "voc other file name": voc(wrapped("<filename>else.png</filename>" + thing("cat"))),
    "voc no objects": voc("<annotation/>", shown=""),
    "voc hidden files": voc(
        wrapped(thing("cat")), files={"Annotations/._b.xml": b"\0\5\x16\7", "JPEGImages/._b.png": b"x"}
    ),
    "voc deep nesting": voc(wrapped(thing("cat") + "<x>" * 50_000 + "</x>" * 50_000)),
    "voc many objects": voc(wrapped(thing("cat") * 5000)),
    "voc empty": voc("", " is no well-formed XML"),
    "voc cut short": voc("<annotation><object><name>cat</na", " is no well-formed XML"),
    "voc two roots": voc(wrapped(thing("cat")) * 2, " is no well-formed XML"),
    "voc zero byte": voc(wrapped(thing("c\0at")), " is no well-formed XML"),
    "voc wrong bytes": voc(b"<annotation>\xff\xfe</annotation>", " is no well-formed XML"),
    "voc wrong encoding": voc("<?xml version='1.0' encoding='klingon'?><annotation/>", " is no well-formed XML"),
    "voc that is JSON": voc('{"objects": []}', " is no well-formed XML"),
    "voc web page": voc("<html><body><p>404</p></body></html>", ": the outermost element is 'html'"),
    "voc unknown entity": voc(wrapped(thing("&cat;")), " is no well-formed XML"),
    "voc billion laughs": voc(BOMB, NO_TYPE),
    "voc quadratic blow-up": voc(BLOWUP, NO_TYPE),
    "voc external entity": voc(
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>{wrapped(thing("&e;"))}', NO_TYPE
    ),
    "voc external document type": voc(f'<!DOCTYPE x SYSTEM "http://x.invalid/x.dtd">{wrapped("")}', NO_TYPE),
    "voc parameter entity": voc(f'<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>{wrapped("")}', NO_TYPE),
    "voc bomb in UTF-16": voc(f"<?xml version='1.0' encoding='utf-16'?>{BOMB}".encode("utf-16"), NO_TYPE),
    "voc object without a name": voc(wrapped("<object/>"), ", object 1: '' is no name of a class"),
    "voc second object without a name": voc(wrapped(thing("cat") + thing(" ")), ", object 2: .* is no name of a class"),
    "voc difficult in words": voc(
        wrapped(thing("cat", "<difficult>yes</difficult>")), ", object 1: difficult is 'yes'"
    ),
    "voc class in two cases": voc(
        wrapped(thing("Cat")), ", object 1: class 'Cat' is written 'cat' in .*a.xml, object 2"
    ),
    "voc name NaN": voc(wrapped(thing("nan")), ", object 1: label 'nan' stands for a missing value"),
    "voc two pictures": voc(wrapped(""), ": b.jpg and b.png may be its image", files={"JPEGImages/b.jpg": b"x"}),
    "voc annotation without a picture": Case(
        {"JPEGImages/a.png": None, "Annotations/a.xml": wrapped(thing("cat")), "Annotations/z.xml": wrapped("")},
        refused=r"z\.xml: image 'z\.jpg' is missing",
    ),
    "voc list of an unknown image": Case(
        {
            "JPEGImages/a.png": None,
            "Annotations/a.xml": wrapped(thing("cat")),
            "ImageSets/Main/train.txt": "a\n",
            "ImageSets/Main/test.txt": "\nc\n",
        },
        refused=r"test\.txt, line 2: image id 'c' has no annotation",
    ),
}
