"""Fill data.template with the fields of a problem."""

from __future__ import annotations

from typing import Any

from rlsync.errors import DataError


def fill(template: str, question: str, fields: dict[str, Any]) -> str:
    """Return the prompt, in which {question} is replaced by `question` and every other name by a field.

    Raises:
        DataError: A name is not among the fields, or the template is malformed.
    """
    values = {**fields, "question": question}
    try:
        return template.format_map(values)
    except KeyError as error:
        raise DataError(
            f"data.template={template!r} uses {{{error.args[0]}}}, which the problems do not have; "
            f"they have {', '.join(sorted(values))}. Double a literal brace: {{{{ or }}}}"
        ) from None
    except (ValueError, AttributeError, TypeError, IndexError) as error:
        raise DataError(
            f"data.template={template!r} cannot be filled: {error}. Write a field as {{name}}, and double a literal "
            "brace: {{ or }}"
        ) from None
