"""Small office files made by hand, so that a test shows all that is in them."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """A ZIP file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _relations(targets: Mapping[str, str]) -> str:
    items = "".join(
        f'<Relationship Id="r{number}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for number, (target, kind) in enumerate(targets.items(), 1)
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{items}</Relationships>'


def _types(parts: Mapping[str, str]) -> str:
    items = "".join(f'<Override PartName="/{name}" ContentType="{kind}"/>' for name, kind in parts.items())
    default = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    return f'<Types xmlns="{_PACKAGE}/content-types">{default}{items}</Types>'


def word(
    body: str,
    styles: str = "",
    numbering: str = "",
    footnotes: str = "",
    more: Mapping[str, str | bytes] | None = None,
) -> bytes:
    """A Word file; ``body`` and the rest are WordprocessingML with the prefix ``w``, ``more`` are further files in it."""
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"

    def part(name: str, content: str) -> str:
        return f'<w:{name} xmlns:w="{_WORD}">{content}</w:{name}>'

    return packed(
        {
            "[Content_Types].xml": _types({"word/document.xml": kind}),
            "_rels/.rels": _relations({"word/document.xml": "officeDocument"}),
            "word/_rels/document.xml.rels": _relations(
                {"styles.xml": "styles", "numbering.xml": "numbering", "footnotes.xml": "footnotes"}
            ),
            "word/document.xml": part("document", f"<w:body>{body}</w:body>"),
            "word/styles.xml": part("styles", styles),
            "word/numbering.xml": part("numbering", numbering),
            "word/footnotes.xml": part("footnotes", footnotes),
            **(more or {}),
        }
    )


def paragraph(text: str, style: str = "", properties: str = "") -> str:
    """A paragraph of a Word file."""
    named = f'<w:pStyle w:val="{style}"/>' if style else ""
    run = f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'
    return f"<w:p><w:pPr>{named}{properties}</w:pPr>{run}</w:p>"


def word_style(identity: str, name: str, properties: str = "", based_on: str = "") -> str:
    """A paragraph style of a Word file."""
    parent = f'<w:basedOn w:val="{based_on}"/>' if based_on else ""
    return (
        f'<w:style w:type="paragraph" w:styleId="{identity}"><w:name w:val="{name}"/>{parent}'
        f"<w:pPr>{properties}</w:pPr></w:style>"
    )


def workbook(
    sheets: Mapping[str, list[list[Any]]], formats: Mapping[int, str] | None = None, hidden: tuple[str, ...] = ()
) -> bytes:
    """A workbook; a cell is a text, a number, or a number and the id of its format."""
    formats = formats or {}
    styles = sorted({cell[1] for rows in sheets.values() for row in rows for cell in row if isinstance(cell, tuple)})
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    files: dict[str, str | bytes] = {
        "[Content_Types].xml": _types({"xl/workbook.xml": f"{kind}.sheet.main+xml"}),
        "_rels/.rels": _relations({"xl/workbook.xml": "officeDocument"}),
        "xl/_rels/workbook.xml.rels": _relations(
            {f"worksheets/sheet{number}.xml": "worksheet" for number in range(1, len(sheets) + 1)}
            | {"styles.xml": "styles"}
        ),
        "xl/styles.xml": f'<styleSheet xmlns="{_SHEET}"><numFmts>'
        + "".join(f'<numFmt numFmtId="{key}" formatCode="{_quoted(code)}"/>' for key, code in formats.items())
        + "</numFmts><cellXfs><xf numFmtId='0'/>"
        + "".join(f"<xf numFmtId='{key}'/>" for key in styles)
        + "</cellXfs></styleSheet>",
    }
    listed = ""
    for number, (name, rows) in enumerate(sheets.items(), 1):
        state = ' state="hidden"' if name in hidden else ""
        listed += f'<sheet name="{_quoted(name)}" sheetId="{number}" r:id="r{number}"{state}/>'
        content = "".join(
            "<row>" + "".join(_cell(cell, row, column, styles) for column, cell in enumerate(cells)) + "</row>"
            for row, cells in enumerate(rows, 1)
        )
        sheet = f'<worksheet xmlns="{_SHEET}"><sheetData>{content}</sheetData></worksheet>'
        files[f"xl/worksheets/sheet{number}.xml"] = sheet
    files["xl/workbook.xml"] = f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>'
    return packed(files)


def _cell(cell: Any, row: int, column: int, styles: list[int]) -> str:
    place = f'r="{chr(65 + column)}{row}"'
    if cell is None:
        return ""
    if isinstance(cell, str):
        return f'<c {place} t="inlineStr"><is><t>{_quoted(cell)}</t></is></c>'
    value, style = cell if isinstance(cell, tuple) else (cell, None)
    number = f' s="{styles.index(style) + 1}"' if style is not None else ""
    return f"<c {place}{number}><v>{value}</v></c>"


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def pdf(pages: list[str | None]) -> bytes:
    """A PDF of one line of text per page; None: a page with a picture instead."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>", "", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids = []
    for text in pages:
        number = len(objects) + 1
        kids.append(f"{number} 0 R")
        if text is None:
            content = "q 100 0 0 100 50 50 cm /I Do Q"
            picture = (
                "<</Type/XObject/Subtype/Image/Width 1/Height 1/ColorSpace/DeviceGray/BitsPerComponent 8/Length 1>>"
            )
            extra = [f"<</Length {len(content)}>>stream\n{content}\nendstream", f"{picture}stream\n0\nendstream"]
            resources = f"<</XObject<</I {number + 2} 0 R>>>>"
        else:
            content = f"BT /F 24 Tf 72 700 Td ({text}) Tj ET"
            extra = [f"<</Length {len(content)}>>stream\n{content}\nendstream"]
            resources = "<</Font<</F 3 0 R>>>>"
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents {number + 1} 0 R/Resources{resources}>>"
        )
        objects += extra
    objects[1] = f"<</Type/Pages/Count {len(kids)}/Kids[{' '.join(kids)}]>>"
    data, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    trailer = f"trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF"
    return (data + f"xref\n0 {size}\n0000000000 65535 f \n{table}{trailer}").encode("latin-1")
