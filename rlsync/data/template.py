"""Prompt text from data.template and the fields of a problem."""

from __future__ import annotations

from typing import Any

from rlsync.errors import DataError


def fill(template: str, question: str, fields: dict[str, Any]) -> str:
    """The prompt; {question} is `question`, every other name a field.

    Raises:
        DataError: a name is not among the fields, or the template is malformed.
    """
    values = {**fields, "question": question}
    try:
        return template.format_map(values)
    except KeyError as error:
        raise DataError(
            f"data.template={template!r} uses {{{error.args[0]}}}, which the problems do not have; "
            f"there is {', '.join(sorted(values))}. A literal brace is written twice: {{{{ or }}}}"
        ) from None
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise DataError(
            f"data.template={template!r} cannot be filled: {error}. Write fields as {{name}} and a literal brace "
            "twice: {{ or }}"
        ) from None
