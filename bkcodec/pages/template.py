"""What all pages share: templates that escape, data for a script, addresses that hold a file."""

from __future__ import annotations

import base64
import json
from typing import Any


def rendered(package: str, template: str, /, **values: Any) -> str:
    """A page from a template.

    Args:
        package: that has the template; it may include what ``bkcodec.pages`` has.
        template: its name.
        **values: what it speaks of; all text in them is escaped.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader(home, "") for home in dict.fromkeys((package, "bkcodec.pages"))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def as_script(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def data_uri(content: bytes, kind: str) -> str:
    """A data: address that holds a file of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
