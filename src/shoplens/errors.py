"""Every error that Shoplens raises, as one tree. No HTTP here: `web/problems.py` maps classes to status codes.

ShoplensError
├── SampleError            the photo (or text) that was sent cannot be used
│   ├── ImageMissing           nothing was sent
│   ├── ImageTooLarge          more bytes than allowed
│   ├── ImageTooManyPixels     more pixels than allowed, told by the header
│   ├── ImageTooSmall          a side of zero or one that the model cannot use
│   ├── ImageUnsupported       not a picture, or of a format that is not read
│   ├── ImageNeedsExtra        a known format whose decoder is not installed (or not safe)
│   ├── ImageCorrupt           truncated, damaged or lying about itself
│   ├── ImageDecoderFailed     the sandboxed decoder died or ran out of time or memory
│   └── ImageGone              the photo of a returned item is no longer where it was put
├── RequestInvalid         a parameter or a body that cannot be understood
│   ├── UploadTooSlow          the body did not arrive in time
│   └── RequestForbidden       sent by a page of another site, or to a host name that is not ours
├── NotFound
│   ├── PredictionNotFound
│   ├── ImageNotKept           the prediction is there, its photo was not stored
│   ├── BlobNotFound           the store has nothing under this key
│   ├── ChannelNotFound
│   ├── ModelNotFound
│   ├── ItemNotFound           no returned item has this id
│   └── RunNotFound            no run of returns has this id
├── Conflict               what is asked for does not fit how things stand now
│   ├── RunInProgress          another process works on a run
│   ├── RunLost                another process took this run over; nothing more may be written for it
│   └── ItemNotReady           the item is not in a state in which this can be done
├── BundleError            a model that must not be served
│   ├── BundleIncomplete
│   ├── BundleTampered
│   ├── BundleTooNew
│   ├── BundleInvalid
│   └── BundleUnverified       its outputs differ from the recorded ones
├── Overloaded
│   ├── QueueFull              refused at once; carries `retry_after_s`
│   └── DeadlineExceeded       accepted, but its time passed
├── Unavailable            a part that we need is not there now
│   ├── EngineStopped
│   ├── ClusterUnavailable     the Ray cluster of a night cannot be reached, or does not get on
│   ├── QueueUnavailable       the queue between web and workers does not answer
│   ├── NoWorker               nobody answers for this model now
│   ├── WireMismatch           web and worker are of versions that do not understand each other
│   ├── DatabaseUnavailable
│   │   └── RecordRefused          it is there, but refuses this one row
│   ├── StorageUnavailable
│   └── SourceUnavailable      the place from which photos are brought in cannot be read
├── TrainingError          a model that cannot be trained
│   ├── DatasetInvalid         labelled photos that cannot be learned from
│   └── TrainingDiverged       the loss became infinite, or the exported model differs from the trained one
└── Misconfigured          settings that contradict themselves or the machine
    ├── UnsafeBind             a public address without accounts
    └── ExtraMissing           a part that is installed on request only
"""

from __future__ import annotations

from typing import ClassVar


class ShoplensError(Exception):
    """Base of all our errors: `code` is stable for programs, `str(error)` is a sentence for people."""

    code: ClassVar[str] = "internal_error"
    public_message: ClassVar[str | None] = None
    """What HTTP clients read instead of `str(error)`, where that names addresses or paths. The log has both."""


class SampleError(ShoplensError):
    """What was sent to be classified cannot be used."""

    code = "sample_invalid"


class ImageMissing(SampleError):
    """There is no picture: no file, or an empty one."""

    code = "image_missing"


class ImageTooLarge(SampleError):
    """More bytes than the limit."""

    code = "image_too_large"


class ImageTooManyPixels(SampleError):
    """The header announces more pixels than the limit."""

    code = "image_too_many_pixels"


class ImageTooSmall(SampleError):
    """A side is too short to be a picture."""

    code = "image_too_small"


class ImageUnsupported(SampleError):
    """The bytes are not of a picture format that is read."""

    code = "image_unsupported"


class ImageNeedsExtra(SampleError):
    """A known format whose decoder is not installed, or whose version is not safe."""

    code = "image_needs_extra"


class ImageCorrupt(SampleError):
    """Truncated, damaged, or not what its header says."""

    code = "image_corrupt"


class ImageDecoderFailed(SampleError):
    """The sandboxed decoder died, or exceeded its time or memory, on this picture."""

    code = "image_decoder_failed"


class ImageGone(SampleError):
    """The photo of a returned item is no longer where it was put."""

    code = "image_gone"


class RequestInvalid(ShoplensError):
    """A parameter or a body that cannot be understood."""

    code = "request_invalid"


class UploadTooSlow(RequestInvalid):
    """The body did not arrive within its time."""

    code = "upload_too_slow"


class RequestForbidden(RequestInvalid):
    """A page of another site made the browser send this, or the host name is not one of ours."""

    code = "request_forbidden"


class NotFound(ShoplensError):
    """The thing asked for is not there."""

    code = "not_found"


class PredictionNotFound(NotFound):
    """No prediction has this id."""

    code = "prediction_not_found"


class ImageNotKept(NotFound):
    """The prediction exists, but its photo was not stored."""

    code = "image_not_kept"


class BlobNotFound(NotFound):
    """The store has nothing under this key."""

    code = "blob_not_found"


class ChannelNotFound(NotFound):
    """No channel of this name is in the settings."""

    code = "channel_not_found"


class ModelNotFound(NotFound):
    """No bundle of this name is installed."""

    code = "model_not_found"


class ItemNotFound(NotFound):
    """No returned item has this id."""

    code = "item_not_found"


class RunNotFound(NotFound):
    """No run of returns has this id."""

    code = "run_not_found"


class Conflict(ShoplensError):
    """What is asked for does not fit how things stand now."""

    code = "conflict"


class RunInProgress(Conflict):
    """Another process works on a run of returns; there is one at a time."""

    code = "run_in_progress"


class RunLost(Conflict):
    """Another process took this run over; this one may write nothing more for it."""

    code = "run_lost"


class ItemNotReady(Conflict):
    """The returned item is not in a state in which this can be done."""

    code = "item_not_ready"


class BundleError(ShoplensError):
    """A bundle that must not be served."""

    code = "bundle_error"


class BundleIncomplete(BundleError):
    """A file of the bundle is missing."""

    code = "bundle_incomplete"


class BundleTampered(BundleError):
    """A file does not match its checksum, or is not listed."""

    code = "bundle_tampered"


class BundleTooNew(BundleError):
    """The bundle's format is newer than this program understands."""

    code = "bundle_too_new"


class BundleInvalid(BundleError):
    """The bundle's parts contradict each other or cannot be read."""

    code = "bundle_invalid"


class BundleUnverified(BundleError):
    """The model's outputs differ from the recorded ones."""

    code = "bundle_unverified"


class Overloaded(ShoplensError):
    """More work than can be done in time."""

    code = "overloaded"


class QueueFull(Overloaded):
    """The queue is at its limit; nothing was started."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Overloaded):
    """The request's time passed before its answer was ready."""

    code = "deadline_exceeded"


class Unavailable(ShoplensError):
    """A part that we depend on cannot be reached now."""

    code = "unavailable"


class EngineStopped(Unavailable):
    """The engine is starting or stopping and takes no work."""

    code = "engine_stopped"


class ClusterUnavailable(Unavailable):
    """The Ray cluster that a night was to run on cannot be reached, or does not get on with its work."""

    code = "cluster_unavailable"


class QueueUnavailable(Unavailable):
    """The queue between the web processes and the model workers did not answer."""

    code = "queue_unavailable"
    public_message = "The queue to the model workers is unavailable."


class NoWorker(Unavailable):
    """No model worker that answers for this model is there now."""

    code = "no_worker"


class WireMismatch(Unavailable):
    """A web process and a model worker speak different versions of the messages between them."""

    code = "wire_mismatch"


class DatabaseUnavailable(Unavailable):
    """The database did not answer, or refused the write."""

    code = "database_unavailable"
    public_message = "The database is unavailable."


class RecordRefused(DatabaseUnavailable):
    """The database is there, but one row does not fit: a duplicate id, or a value that a column cannot hold."""

    code = "record_refused"


class StorageUnavailable(Unavailable):
    """The image store did not answer, or refused the write."""

    code = "storage_unavailable"
    public_message = "The photo store is unavailable."


class SourceUnavailable(Unavailable):
    """The place from which photos are to be brought in does not exist or cannot be read."""

    code = "source_unavailable"


class TrainingError(ShoplensError):
    """A model that cannot be trained."""

    code = "training_error"


class DatasetInvalid(TrainingError):
    """Labelled photos that cannot be learned from."""

    code = "dataset_invalid"


class TrainingDiverged(TrainingError):
    """The loss became infinite, or the exported model does not compute what the trained one does."""

    code = "training_diverged"


class Misconfigured(ShoplensError):
    """The settings contradict themselves or this machine."""

    code = "misconfigured"


class UnsafeBind(Misconfigured):
    """A public address was asked for without accounts and without saying so explicitly."""

    code = "unsafe_bind"


class ExtraMissing(Misconfigured):
    """A part of Shoplens that is only installed on request is needed for this."""

    code = "extra_missing"
