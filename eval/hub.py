"""The Hugging Face Hub: turns its errors and a full cache into one line. No line shows a token."""

import contextlib
from collections.abc import Iterator

from tidy_stlms.configs.errors import UserError, one_line
from tidy_stlms.configs.full_disk import writing


@contextlib.contextmanager
def writing_hub_cache() -> Iterator[None]:
    """Raise DiskFull if a download finds no room in the Hub's cache.

    Wrap it around code that turns other errors into a message: that code would report a wrong name instead.
    """
    from huggingface_hub.constants import HF_HOME

    with writing(HF_HOME):
        yield


@contextlib.contextmanager
def hub_errors(action: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub inside the block into a UserError that begins with `action`."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UserError(f"{action}: {one_line(error, 200)}") from None
    except (errors.LocalTokenNotFoundError, errors.RepositoryNotFoundError) as error:
        hint = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = "no such repository for this token" if status == 404 else "the Hub asks for a token"
        raise UserError(f"{action}: {reason}; {hint}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise UserError(
                f"{action}: the Hub refused it ({status}); use a token that may write there "
                "(`hf auth login`, or HF_TOKEN), under a name of your own"
            ) from None
        raise UserError(f"{action}: the Hub answered {status}: {one_line(error, 200)}") from None
    except ValueError as error:  # the Hub refuses metadata of the card
        raise UserError(f"{action}: {one_line(error, 200)}") from None
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:
        raise UserError(
            f"{action}: the Hub cannot be reached ({one_line(error, 200)}); nothing here was changed"
        ) from None
