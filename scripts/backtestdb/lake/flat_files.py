"""The vendor's flat files over S3: a session's minute bars of the whole market in one gzipped CSV.

Documented by the vendor under "Flat Files", us_stocks_sip/minute_aggs_v1: ticker, volume, open,
close, high, low, window_start (ns UTC), transactions; prices as traded. A day's file is there on
the morning after it.
"""

from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.fs as pa_fs

from backtestdb.config import Settings
from backtestdb.errors import ProjectError, SettingsError
from backtestdb.lake.store import make_s3

FOLDER = "us_stocks_sip/minute_aggs_v1"
DENIED = (
    *("ACCESS_DENIED", "AccessDenied"),
    *("INVALID_ACCESS_KEY", "InvalidAccessKeyId", "SIGNATURE_DOES_NOT_MATCH"),
)
TYPES = {
    "ticker": pa.string(),
    **{name: pa.float64() for name in ("volume", "open", "close", "high", "low")},
    "window_start": pa.int64(),
}


class FlatFilesError(ProjectError):
    """A file that could not be had or read."""


class NotThereError(FlatFilesError):
    """The vendor has no file of this session (yet)."""


class NotInSubscriptionError(FlatFilesError):
    """The keys are right, the file is not part of the subscription."""


@dataclass(frozen=True)
class FlatFiles:
    """Where the files are. `options` as for a store, keys included."""

    bucket: str
    options: dict[str, str] = field(repr=False)

    def fetch_minutes(self, session_date: date) -> pa.Table:
        """Return the columns of TYPES. Raise NotThereError, NotInSubscriptionError, or
        FlatFilesError with the reason."""
        path = f"{self.bucket}/{FOLDER}/{session_date:%Y/%m}/{session_date}.csv.gz"
        try:
            with make_s3(self.options).open_input_file(path) as file:
                content = file.read_buffer()
        except FileNotFoundError as error:
            raise NotThereError(f"there is no flat file of {session_date}") from error
        except OSError as error:
            raise self.explain(error, session_date) from error

        return parse_minutes(content, session_date)

    def explain(self, error: OSError, session_date: date) -> FlatFilesError:
        """Return the error that a user can act on."""
        text = str(error)
        if any(word in text for word in DENIED):
            # A refused file says the same of a wrong key and a missing right: a list tells.
            if self.accepts_keys():
                return NotInSubscriptionError(
                    f"the subscription does not have the flat file of {session_date}"
                )
            return FlatFilesError(
                "the vendor's flat files do not accept the keys",
                next_step="check FLATFILES_ACCESS_KEY and FLATFILES_SECRET in .env",
            )

        return FlatFilesError(
            f"the flat file of {session_date} could not be fetched: {text[:300]}",
            next_step="start the same command again later: it continues",
        )

    def accepts_keys(self) -> bool:
        """Ask for a list of files: the answer about one file's size has no body that would tell."""
        try:
            make_s3(self.options).get_file_info(
                pa_fs.FileSelector(f"{self.bucket}/{FOLDER}", allow_not_found=True)
            )
        except OSError:
            return False
        return True


def make_flat_files(settings: Settings) -> FlatFiles:
    """Raise SettingsError without keys."""
    if not settings.flatfiles_access_key or not settings.flatfiles_secret:
        raise SettingsError(
            "no keys for the vendor's flat files: FLATFILES_ACCESS_KEY or FLATFILES_SECRET is "
            "empty",
            next_step="write them into .env, or fetch by the API: make backfill-lake "
            'ARGS="--by-api …"',
        )

    return FlatFiles(
        settings.flatfiles_bucket,
        {
            "AWS_ENDPOINT_URL": settings.flatfiles_endpoint,
            "AWS_ACCESS_KEY_ID": settings.flatfiles_access_key,
            "AWS_SECRET_ACCESS_KEY": settings.flatfiles_secret,
            "AWS_REGION": "us-east-1",
        },
    )


def parse_minutes(content: bytes | pa.Buffer, session_date: date) -> pa.Table:
    """Given a whole file, return the columns of TYPES; NA and TRUE are tickers. Raise
    FlatFilesError for one that is cut short or has other columns."""
    options = pa_csv.ConvertOptions(
        column_types=TYPES,
        include_columns=list(TYPES),
        strings_can_be_null=False,
        quoted_strings_can_be_null=False,
    )
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), "gzip") as unpacked:
            return pa_csv.read_csv(unpacked, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
        raise FlatFilesError(
            f"the flat file of {session_date} is damaged or of another form than documented: "
            f"{error}",
            next_step="start the same command again: it asks for this file anew",
        ) from error
