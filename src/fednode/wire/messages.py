"""The bodies of the wire: what the central node and its client nodes, and the CLI, say to each other.

Requests refuse unknown fields; answers are read leniently, so that a newer central node may say more.
`docs/explanation/protocol.md` tells the story; the OpenAPI at /openapi.json lists every path.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from fednode.core.encoding import F32, Encoding
from fednode.core.ids import NAME_PATTERN
from fednode.core.status import FailureCode, RoundKind

PROTOCOL = 1
PROTOCOL_HEADER = "Fednode-Protocol"
OFFSET_HEADER = "Upload-Offset"
MEDIA_TYPE = "application/vnd.safetensors"

MAX_SEED = 2**63 - 1024     # the largest that a float64 holds, as which limits are published

Name = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
JsonDict = dict[str, Any]


def _whole(value: Any) -> Any:
    """JSON has one kind of numbers: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)      # last in an annotation, so that its limits are published


class Request(BaseModel):
    """A body that somebody sends: closed, finite; a number is no text and no yes or no."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Answer(BaseModel):
    """A body that somebody gets: open to additions."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ErrorBody(Answer):
    """Every error of the API."""

    code: str
    message: str
    fix: str
    fields: dict[str, str] = {}     # where several of a request are wrong: each of them


# --- a client node registers and says what it has -------------------------------------------------


class NonceRequest(Request):
    """POST /api/v1/nonces: a number to sign, for a client that is known and whose secret opens nothing any more."""

    name: Name


class Nonce(Answer):
    """Its answer: good for one registration, for a minute."""

    nonce: str


class Registration(Request):
    """POST /api/v1/clients, with a join token as bearer. Repeating it with the same key is harmless.

    A known client needs no join token where its proof signs a `nonce` of this central node.
    """

    name: Name
    public_key: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]     # Ed25519, raw, hex
    proof: Annotated[str, Field(pattern="^[0-9a-f]{128}$")]         # signature over `registration_text(name, nonce)`
    nonce: Annotated[str, Field(pattern="^[0-9a-f.-]{0,200}$")] = ""


def registration_text(name: str, nonce: str = "") -> bytes:
    """What a registration's `proof` signs: that whoever asks for the name has the key, and has it now."""
    return f"fednode registration of {name}{nonce and f' at {nonce}'}".encode()


class Registered(Answer):
    """Its answer: the secret is the client's bearer from now on, and is shown this once."""

    client_id: str
    name: str
    secret: str


class LimitsBody(Request):
    """What a client accepts of a run, by its operator's word: `core.policy.Limits` as JSON."""

    max_epochs: Annotated[int, Field(ge=1), WHOLE] | None = None
    max_wall_time_s: Annotated[float, Field(gt=0)] | None = None
    min_cohort: Annotated[int, Field(ge=1), WHOLE] | None = None


class OfferBody(Request):
    """What a client says of a task: `core.records.Offer` as JSON."""

    task: Annotated[str, Field(min_length=1, max_length=100)]
    fingerprint: Annotated[str, Field(min_length=1, max_length=200)]
    schema_: JsonDict = Field(alias="schema")
    metrics: list[JsonDict]
    supports: list[str] = []
    default_rounds: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] = 5
    summary: JsonDict = {}
    classes: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=1_000)] = []
    notice: Annotated[str, Field(max_length=1_000)] = ""
    limits: LimitsBody | None = None

    @model_serializer(mode="wrap")
    def _without_unsaid(self, write: SerializerFunctionWrapHandler) -> JsonDict:
        """An older central node refuses fields that it does not know: where they say nothing, they are left out."""
        return {name: value for name, value in write(self).items() if value or name not in ADDED_TO_OFFER}


ADDED_TO_OFFER = {"classes", "notice", "limits"}       # since the first release


class Presence(Request):
    """PUT /api/v1/clients/me: sent at every start of the client node, and when its offers change."""

    offers: list[OfferBody]
    versions: dict[str, str] = {}

    def of_the_first_release(self) -> Presence:
        """As an older central node takes it."""
        unsaid = {name: OfferBody.model_fields[name].default for name in ADDED_TO_OFFER}
        return self.model_copy(update={"offers": [offer.model_copy(update=unsaid) for offer in self.offers]})


class Farewell(Request):
    """POST /api/v1/clients/me/leave; without a body, too. `holding`: it ends that assignment first, takes no other."""

    reason: Annotated[str, Field(max_length=200)] = ""
    holding: str = ""


# --- work -------------------------------------------------------------------------------------------


class AssignmentBody(Answer):
    """One client's work: `visit.Order`, and what the transport needs."""

    id: str                         # "<run id>.<round>.<attempt>", unique for the client that asks
    run_id: str
    run_number: int
    number: int                     # the round
    attempt: int
    kind: RoundKind
    rounds: int                     # of the whole run
    task: str
    fingerprint: str
    config: JsonDict
    run_seed: int
    base_model: str                 # sha256; GET /api/v1/models/<sha256>/params
    base_model_bytes: int
    encoding: str = F32             # how params travel in this run; an older central node knows one way
    base_file: str = ""             # sha256 of what /params?encoding= answers, where it is not the model's own file
    unfinished_runs: list[str] | None = None    # in the first round: what a client keeps of other runs is of no use
    cohort_size: int | None = None  # how many are asked in this round; an older central node does not say


class Work(Answer):
    """GET /api/v1/clients/me/work?wait=SECONDS&holding=ID. `holding` renews the lease of what is being done."""

    assignment: AssignmentBody | None = None
    withdrawn: bool = False         # what the client holds is no longer wanted: cancel it


class EpochBody(Request):
    epoch: Annotated[int, Field(ge=1, lt=2**31), WHOLE]        # what every database holds
    values: dict[str, float]


class Progress(Request):
    """POST /api/v1/assignments/{id}/metrics: idempotent by (assignment, phase, epoch).

    `evaluation` (`core.metrics.Metrics` as JSON) is durable before the answer; for an assignment of kind
    `evaluate` it is the report itself. `local` scores may be lost in a crash.
    """

    evaluation: JsonDict | None = None
    local: list[EpochBody] = []


class FailureBody(Request):
    """POST /api/v1/assignments/{id}/failure."""

    code: Literal[FailureCode.TASK_ERROR, FailureCode.WITHDRAWN, FailureCode.REFUSED]
    reason: Annotated[str, Field(max_length=2_000)]
    traceback: Annotated[str, Field(max_length=20_000)] = ""


class Announcement(Request):
    """POST /api/v1/assignments/{id}/update: what will come. Refused here if it will not be taken."""

    num_bytes: Annotated[int, Field(ge=1, le=2**53), WHOLE]
    digest: Hex32                   # xxh3-128 of the body
    num_examples: Annotated[int, Field(ge=0, le=2**53), WHOLE]
    environment: JsonDict = {}


class UploadTicket(Answer):
    """Its answer: PUT the body from `offset` on to `url`, with `?offset=`; HEAD tells the offset again."""

    url: str
    offset: int
    is_complete: bool = False       # it was reported before, by the same bytes


# --- people: the CLI and the pages ------------------------------------------------------------------


class RunRequest(Request):
    """POST /api/v1/runs. What is left out comes from the task's offer and the strategy's defaults."""

    task: Annotated[str, Field(min_length=1, max_length=100)]
    rounds: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = None        # of training
    task_config: JsonDict = {}      # the task's fields
    strategy: str = "fedavg"        # its name
    strategy_config: JsonDict = {}  # its fields
    min_updates: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = None     # left out: 2, or 1 for one client
    cohort_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the roster that is there
    deadline_s: Annotated[float, Field(gt=0, le=1e9)] = 600.0   # a round's budget of up-time
    seed: Annotated[int, Field(ge=0, le=MAX_SEED), WHOLE] | None = None
    clients: list[Name] = []        # exactly these; empty: whoever offers the task
    start_from: str = "fresh"       # fresh | latest | a model
    best_metric: str | None = None  # by which the best model is told; left out: the task's first (of `val`, if it has)
    patience: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = None    # rounds without a better one; then stop
    keep_every: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] | None = None  # 0: first, best, last. left out: ~100
    encoding: Encoding = F32        # how params travel; bf16: float32 tensors in half their bytes


class PauseRequest(Request):
    """POST /api/v1/runs/{ref}/pause."""

    now: bool = False               # take back what is unreported, instead of letting the open round end


class RunSummary(Answer):
    """A run as the last line of `fednode run --follow --json`, and in every list."""

    run_id: str
    number: int
    task: str
    strategy: str
    status: str
    reason: str
    rounds: int                     # committed train rounds
    rounds_planned: int
    metrics: dict[str, float]       # of the last committed model
    model_sha256: str | None
    seconds: float                  # since the run was started, until it ended
    config: JsonDict
    clients: list[str]              # the roster


class DeletionBody(Answer):
    """DELETE /api/v1/runs/{ref}, and before it GET /api/v1/runs/{ref}/deletion: what goes with a run."""

    run_id: str
    number: int
    task: str
    status: str
    num_models: int
    num_updates: int                # what clients sent: of ended runs only their numbers are left
    num_rows: int                   # of the database, which uses their room again
    num_files: int                  # params that nobody else needs
    num_bytes: int                  # of them: what the disk gets back
    needed_by: list[int]            # the runs that started from one of its models: as long as they are there it stays


# --- people try a model -----------------------------------------------------------------------------

Byte = Annotated[int, Field(strict=True, ge=0, le=255), WHOLE]


class PredictionRequest(Request):
    """POST /api/v1/models/{ref}/predictions. Nothing of it is kept."""

    # Pictures, each row by row, as the task's own data have them: of a digit 0 is paper and 255 is ink.
    inputs: Annotated[list[list[Byte]], Field(min_length=1, max_length=16)]
    explain: bool = False           # also answer with heat maps, where the task makes some


class PredictionBody(Answer):
    """Its answer: which model that was, and the probability of each label for each input."""

    model_sha256: str
    run: int                        # its number
    round: int                      # in which the model was made
    labels: list[str]
    probabilities: list[list[float]]
    # The model's own decision threshold, chosen on held-back data, for the second of two labels; null: it has none.
    threshold: float | None
    awaits_threshold: bool          # the task chooses one, and this model's is not measured yet: the next round does
    # The label of each input: by the threshold where there is one, else the most probable.
    verdicts: list[str]
    # What in each input speaks for its verdict: rows of numbers from 0 to 1, to be stretched over the picture.
    heat_maps: list[list[list[float]]] | None
    # What the task wants to be read beside an answer; empty: nothing.
    notice: str


class FilePredictionBody(PredictionBody):
    """POST /api/v1/models/{ref}/predictions/file: the same for the picture in a file, as it was read."""

    pixels: list[int]


class PictureBody(Answer):
    """What one input is: so many numbers, row by row."""

    height: int
    width: int
    channels: int
    is_drawn: bool                  # by hand, ink on paper


class Choice(Answer):
    """GET /api/v1/predictions/choices: a run whose newest model can be tried, or why it cannot."""

    run: int
    task: str
    status: str
    is_live: bool                   # newer models will come
    rounds_planned: int
    round: int | None               # of the model; None before model 0
    model_sha256: str | None
    metrics: dict[str, float]       # pooled, of its newest model that was measured
    picture: PictureBody | None
    labels: list[str]
    reads_files: bool               # JPEG and PNG, by POST /api/v1/models/{ref}/predictions/file
    notice: str                     # to be read beside every answer; empty: nothing
    problem: ErrorBody | None       # why its models cannot be tried here


class SampleBody(Answer):
    """A picture that anybody may see."""

    label: str
    pixels: list[int]


class SamplesBody(Answer):
    """GET /api/v1/predictions/samples/{task}: pictures to try a model with, and where they come from."""

    source: str
    samples: list[SampleBody]
