"""The tree of errors, as far as the core and several features raise them; a feature's own stand in its `errors.py`.
None knows HTTP: `web/problems.py` maps classes to status codes.

ShoplensError
├── SampleError            the photo that was sent cannot be used
│   ├── ImageMissing           nothing was sent
│   ├── ImageTooLarge          more bytes than allowed
│   ├── ImageTooManyPixels     more pixels than allowed, by its header
│   ├── ImageTooSmall          too few pixels for the model
│   ├── ImageUnsupported       not an image, or not of a supported format
│   ├── ImageNeedsExtra        a known format whose decoder is not installed, or not safe
│   ├── ImageCorrupt           truncated or damaged
│   ├── ImageDecoderFailed     the sandboxed decoder died or ran out of time or memory
│   ├── ImageChanged           the stored photo is not the one that was received
│   └── ImageGone              the photo of a batch item is missing from the store
├── RequestInvalid         an invalid parameter or body
│   ├── RequestMalformed       headers that contradict each other, such as two Host headers
│   ├── HeadersTooLarge        more bytes of headers than allowed
│   ├── AddressTooLong         the URL is longer than allowed
│   ├── BodyTooLarge           more bytes than allowed where no photo is taken
│   ├── BodyUnsupported        a form or JSON that is not in UTF-8
│   ├── UploadTooSlow          the upload paused for too long or was too slow
│   └── RequestForbidden       a cross-site request, or a Host header that is not allowed
├── NotAuthenticated       who asks is not known
├── PermissionDenied       who asks may not do this
├── TooManyTries           refused for a while; carries `retry_after_s`
├── NotFound
│   ├── PredictionNotFound
│   ├── ImageNotKept           the prediction exists, but its photo was not stored, or is deleted
│   ├── BlobNotFound           the store has no object under this key
│   ├── ChannelNotFound
│   ├── ModelNotFound
│   ├── ItemNotFound           no batch item has this id
│   └── RunNotFound            no batch run has this id
├── Conflict               the request does not fit the current state
│   ├── RunInProgress          another process is working on a run of this channel
│   ├── RunLost                another process took over this run
│   ├── NothingWaiting         a run was to start, but no item waits for one
│   ├── TooManyVersions        no further version of a model can be loaded now
│   ├── ItemNotReady           the item is not in a state that allows this
│   └── ItemChanged            somebody else changed it since it was shown
├── BundleError            a model that cannot be served
│   ├── BundleIncomplete
│   ├── BundleTampered
│   ├── BundleTooNew
│   ├── BundleInvalid
│   ├── BundleUnverified       the outputs differ from the recorded ones
│   └── BundleUntrusted        not signed by a trusted key, where that is required
├── Overloaded
│   ├── QueueFull              refused immediately; carries `retry_after_s`
│   └── DeadlineExceeded       accepted, but not finished in time
│       └── NotStarted         accepted, but not even begun in time, because of others
├── Unavailable            a dependency cannot be reached
│   ├── EngineStopped
│   ├── EngineStuck            photos wait, and none is finished
│   ├── ClusterUnavailable     the Ray cluster cannot be reached, or makes no progress
│   ├── QueueUnavailable       the queue between web and workers does not respond
│   ├── NoWorker               no worker serves this model
│   ├── WireMismatch           web and worker use incompatible message versions
│   ├── DatabaseUnavailable
│   │   ├── DatabaseUnusable       removed, replaced, damaged or not permitted: waiting does not help
│   │   └── RecordRefused          the database rejects this one row
│   ├── StorageUnavailable
│   │   └── StorageUnusable        not permitted, or not a folder: waiting does not help
│   └── SourceUnavailable      the source of an import cannot be read
└── Misconfigured          settings that contradict each other or this machine
    ├── FileUnusable           a file or folder that cannot be read or written
    ├── UnsafeBind             a public address without any account or --allow-public
    └── ExtraMissing           an optional part that is not installed
"""

from __future__ import annotations

from typing import ClassVar

from shoplens.messages import marked


class ShoplensError(Exception):
    """Base of all errors: `code` is stable for programs, `str(error)` is a sentence for people."""

    code: ClassVar[str] = "internal_error"
    public_message: ClassVar[str | None] = None
    """What HTTP clients read instead of `str(error)`, where that names addresses or paths. The log has both."""

    @property
    def public(self) -> str:
        """The sentence for clients and pages: without the addresses and paths of the server."""
        return self.public_message or str(self)

    @property
    def notice(self) -> str:
        """`public` with the code, for what is shown later than the request that failed."""
        sentence = self.public.removesuffix(".")
        notice = marked(f"{sentence} ({self.code}).")
        return notice if self.public_message is None else marked(f"{notice} The log has the details.")


class SampleError(ShoplensError):
    """The photo that was sent cannot be used."""

    code = "sample_invalid"


class ImageMissing(SampleError):
    """No file was sent, or an empty one."""

    code = "image_missing"


class ImageTooLarge(SampleError):
    """The photo has more bytes than allowed."""

    code = "image_too_large"


class ImageTooManyPixels(SampleError):
    """The photo has more pixels than allowed, by its header."""

    code = "image_too_many_pixels"


class ImageTooSmall(SampleError):
    """The photo is too small to be classified."""

    code = "image_too_small"


class ImageUnsupported(SampleError):
    """The file is not an image, or not of a supported format."""

    code = "image_unsupported"


class ImageNeedsExtra(SampleError):
    """The format is known, but its decoder is not installed, or has known vulnerabilities."""

    code = "image_needs_extra"


class ImageCorrupt(SampleError):
    """The file is truncated or damaged."""

    code = "image_corrupt"


class ImageDecoderFailed(SampleError):
    """The sandboxed decoder died, or exceeded its time or memory, on this picture."""

    code = "image_decoder_failed"


class ImageChanged(SampleError):
    """The stored photo is not the one that was received: its content differs from its hash."""

    code = "image_changed"
    public_message = "The photo in the store has changed since it was received, so it is not shown."


class ImageGone(SampleError):
    """The photo of a batch item is missing from the store."""

    code = "image_gone"


class RequestInvalid(ShoplensError):
    """A parameter or the body is invalid."""

    code = "request_invalid"


class RequestMalformed(RequestInvalid):
    """The headers of the request contradict each other."""

    code = "request_malformed"


class HeadersTooLarge(RequestInvalid):
    """The headers of the request have more bytes than allowed."""

    code = "headers_too_large"


class AddressTooLong(RequestInvalid):
    """The URL of the request is longer than allowed."""

    code = "address_too_long"


class BodyTooLarge(RequestInvalid):
    """The body has more bytes than allowed where no photo is taken."""

    code = "body_too_large"


class BodyUnsupported(RequestInvalid):
    """A form or JSON that is not in UTF-8."""

    code = "body_unsupported"


class UploadTooSlow(RequestInvalid):
    """The upload paused for too long, or was too slow."""

    code = "upload_too_slow"


class RequestForbidden(RequestInvalid):
    """The request comes from a page of another site, or its Host header is not allowed."""

    code = "request_forbidden"


class NotAuthenticated(ShoplensError):
    """The request has no valid session, key or token."""

    code = "not_authenticated"


class PermissionDenied(ShoplensError):
    """The person or the key that asks may not do this."""

    code = "permission_denied"


class TooManyTries(ShoplensError):
    """Too many tries, or too many requests of one key or address; `retry_after_s` says how long to wait."""

    code = "too_many_tries"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotFound(ShoplensError):
    """The requested object does not exist."""

    code = "not_found"


class PredictionNotFound(NotFound):
    """No prediction has this id."""

    code = "prediction_not_found"


class ImageNotKept(NotFound):
    """The prediction exists, but its photo was not stored, or is deleted."""

    code = "image_not_kept"


class BlobNotFound(NotFound):
    """The store has no object under this key."""

    code = "blob_not_found"


class ChannelNotFound(NotFound):
    """The settings have no channel of this name."""

    code = "channel_not_found"


class ModelNotFound(NotFound):
    """No bundle of this name is installed."""

    code = "model_not_found"


class ItemNotFound(NotFound):
    """No batch item has this id."""

    code = "item_not_found"


class RunNotFound(NotFound):
    """No batch run has this id."""

    code = "run_not_found"


class Conflict(ShoplensError):
    """The request does not fit the current state."""

    code = "conflict"


class RunInProgress(Conflict):
    """Another process is working on a run of this channel; there is one at a time."""

    code = "run_in_progress"


class RunLost(Conflict):
    """Another process took this run over, or it was cancelled; this process must not write to it any more."""

    code = "run_lost"


class TooManyVersions(Conflict):
    """No further version of a model can be loaded beside the live ones now."""

    code = "too_many_versions"


class ItemNotReady(Conflict):
    """The batch item is not in a state that allows this."""

    code = "item_not_ready"


class ItemChanged(Conflict):
    """Somebody else changed it since it was shown."""

    code = "item_changed"


class NothingWaiting(Conflict):
    """A run was to start, but no item waits for one."""

    code = "nothing_waiting"


class BundleError(ShoplensError):
    """The bundle cannot be served."""

    code = "bundle_error"
    public_message = "The model cannot be used now."


class BundleIncomplete(BundleError):
    """A file of the bundle is missing."""

    code = "bundle_incomplete"


class BundleTampered(BundleError):
    """A file does not match its checksum, or is not listed."""

    code = "bundle_tampered"


class BundleTooNew(BundleError):
    """The bundle's format is newer than this version supports."""

    code = "bundle_too_new"


class BundleInvalid(BundleError):
    """The bundle's files contradict each other or cannot be read."""

    code = "bundle_invalid"


class BundleUnverified(BundleError):
    """The model's outputs differ from the recorded ones."""

    code = "bundle_unverified"


class BundleUntrusted(BundleError):
    """The settings require a signature by a trusted key, and the model has none."""

    code = "bundle_untrusted"


class Overloaded(ShoplensError):
    """The server has more work than it can do in time."""

    code = "overloaded"


class QueueFull(Overloaded):
    """The queue is full; nothing was started."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Overloaded):
    """The result was not ready before the deadline."""

    code = "deadline_exceeded"


class NotStarted(DeadlineExceeded):
    """The deadline passed while the photo waited for others; it was not begun."""

    code = "not_started"


class Unavailable(ShoplensError):
    """A dependency cannot be reached."""

    code = "unavailable"


class EngineStopped(Unavailable):
    """The engine is starting or stopping and accepts no work."""

    code = "engine_stopped"


class EngineStuck(Unavailable):
    """Photos wait for the engine, and for some seconds it has finished none."""

    code = "engine_stuck"


class ClusterUnavailable(Unavailable):
    """The Ray cluster cannot be reached, or makes no progress."""

    code = "cluster_unavailable"
    public_message = "The cluster is unavailable."


class QueueUnavailable(Unavailable):
    """The queue between web processes and model workers does not respond."""

    code = "queue_unavailable"
    public_message = "The queue to the model workers is unavailable."


class NoWorker(Unavailable):
    """No model worker serves this model."""

    code = "no_worker"


class WireMismatch(Unavailable):
    """A web process and a model worker use incompatible versions of their messages."""

    code = "wire_mismatch"


class DatabaseUnavailable(Unavailable):
    """The database does not respond, or rejected the write."""

    code = "database_unavailable"
    public_message = "The database is unavailable."


class DatabaseUnusable(DatabaseUnavailable):
    """The database was removed, replaced or damaged, or refuses this program; trying again does not help."""

    code = "database_unusable"


class RecordRefused(DatabaseUnavailable):
    """The database rejected one row: a duplicate id, or a value that a column cannot hold."""

    code = "record_refused"


class StorageUnavailable(Unavailable):
    """The photo store does not respond, or rejected the write."""

    code = "storage_unavailable"
    public_message = "The photo store is unavailable."


class StorageUnusable(StorageUnavailable):
    """The folder of the photo store cannot be used as it is; trying again does not help."""

    code = "storage_unusable"


class SourceUnavailable(Unavailable):
    """The source of an import does not exist or cannot be read."""

    code = "source_unavailable"
    public_message = "The source of the import is unavailable."


class Misconfigured(ShoplensError):
    """The settings contradict each other or this machine."""

    code = "misconfigured"
    public_message = "The server lacks a setting for this."


class FileUnusable(Misconfigured):
    """A file or a folder cannot be read or written."""

    code = "file_unusable"


class UnsafeBind(Misconfigured):
    """A public address needs an account or --allow-public: without both, everybody could do everything."""

    code = "unsafe_bind"


class ExtraMissing(Misconfigured):
    """An optional part of Shoplens is needed for this and not installed."""

    code = "extra_missing"
