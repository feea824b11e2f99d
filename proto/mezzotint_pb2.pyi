from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]

class ModelState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATE_UNSPECIFIED: _ClassVar[ModelState]
    MODEL_STATE_READY: _ClassVar[ModelState]
    MODEL_STATE_LOADING: _ClassVar[ModelState]
    MODEL_STATE_UNLOADING: _ClassVar[ModelState]
    MODEL_STATE_UNAVAILABLE: _ClassVar[ModelState]
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
MODEL_STATE_UNSPECIFIED: ModelState
MODEL_STATE_READY: ModelState
MODEL_STATE_LOADING: ModelState
MODEL_STATE_UNLOADING: ModelState
MODEL_STATE_UNAVAILABLE: ModelState

class Tensor(_message.Message):
    __slots__ = ("shape", "data")
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    data: bytes
    def __init__(self, shape: _Optional[_Iterable[int]] = ..., data: _Optional[bytes] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("request_id", "model", "prompt", "negative_prompt", "steps", "guidance", "seed", "sampler", "sigmas", "spacing", "eta", "width", "height", "num_images", "preview_every", "image_format", "quality", "latents", "prompt_states", "negative_prompt_states", "custom_sigmas", "return_latents", "guidance_start", "guidance_end", "cache_interval", "cache_schedule", "decoder", "priority", "guidance_rescale", "clip_skip", "subseed", "subseed_strength", "image", "strength", "mask", "mask_blur", "resize_mode", "hires_scale", "hires_steps", "hires_strength", "hires_upscaler")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    SIGMAS_FIELD_NUMBER: _ClassVar[int]
    SPACING_FIELD_NUMBER: _ClassVar[int]
    ETA_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_IMAGES_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FORMAT_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_STATES_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_PROMPT_STATES_FIELD_NUMBER: _ClassVar[int]
    CUSTOM_SIGMAS_FIELD_NUMBER: _ClassVar[int]
    RETURN_LATENTS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_START_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_END_FIELD_NUMBER: _ClassVar[int]
    CACHE_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    CACHE_SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_RESCALE_FIELD_NUMBER: _ClassVar[int]
    CLIP_SKIP_FIELD_NUMBER: _ClassVar[int]
    SUBSEED_FIELD_NUMBER: _ClassVar[int]
    SUBSEED_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    MASK_FIELD_NUMBER: _ClassVar[int]
    MASK_BLUR_FIELD_NUMBER: _ClassVar[int]
    RESIZE_MODE_FIELD_NUMBER: _ClassVar[int]
    HIRES_SCALE_FIELD_NUMBER: _ClassVar[int]
    HIRES_STEPS_FIELD_NUMBER: _ClassVar[int]
    HIRES_STRENGTH_FIELD_NUMBER: _ClassVar[int]
    HIRES_UPSCALER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    prompt: str
    negative_prompt: str
    steps: int
    guidance: float
    seed: int
    sampler: str
    sigmas: str
    spacing: str
    eta: float
    width: int
    height: int
    num_images: int
    preview_every: int
    image_format: ImageFormat
    quality: int
    latents: Tensor
    prompt_states: Tensor
    negative_prompt_states: Tensor
    custom_sigmas: _containers.RepeatedScalarFieldContainer[float]
    return_latents: bool
    guidance_start: float
    guidance_end: float
    cache_interval: int
    cache_schedule: _containers.RepeatedScalarFieldContainer[int]
    decoder: str
    priority: int
    guidance_rescale: float
    clip_skip: int
    subseed: int
    subseed_strength: float
    image: bytes
    strength: float
    mask: bytes
    mask_blur: float
    resize_mode: str
    hires_scale: float
    hires_steps: int
    hires_strength: float
    hires_upscaler: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., prompt: _Optional[str] = ..., negative_prompt: _Optional[str] = ..., steps: _Optional[int] = ..., guidance: _Optional[float] = ..., seed: _Optional[int] = ..., sampler: _Optional[str] = ..., sigmas: _Optional[str] = ..., spacing: _Optional[str] = ..., eta: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., num_images: _Optional[int] = ..., preview_every: _Optional[int] = ..., image_format: _Optional[_Union[ImageFormat, str]] = ..., quality: _Optional[int] = ..., latents: _Optional[_Union[Tensor, _Mapping]] = ..., prompt_states: _Optional[_Union[Tensor, _Mapping]] = ..., negative_prompt_states: _Optional[_Union[Tensor, _Mapping]] = ..., custom_sigmas: _Optional[_Iterable[float]] = ..., return_latents: bool = ..., guidance_start: _Optional[float] = ..., guidance_end: _Optional[float] = ..., cache_interval: _Optional[int] = ..., cache_schedule: _Optional[_Iterable[int]] = ..., decoder: _Optional[str] = ..., priority: _Optional[int] = ..., guidance_rescale: _Optional[float] = ..., clip_skip: _Optional[int] = ..., subseed: _Optional[int] = ..., subseed_strength: _Optional[float] = ..., image: _Optional[bytes] = ..., strength: _Optional[float] = ..., mask: _Optional[bytes] = ..., mask_blur: _Optional[float] = ..., resize_mode: _Optional[str] = ..., hires_scale: _Optional[float] = ..., hires_steps: _Optional[int] = ..., hires_strength: _Optional[float] = ..., hires_upscaler: _Optional[str] = ...) -> None: ...

class GenerateEvent(_message.Message):
    __slots__ = ("accepted", "progress", "image")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    progress: Progress
    image: ImageResult
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., image: _Optional[_Union[ImageResult, _Mapping]] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("request_id", "seeds", "steps", "queue_position", "warnings", "start_in_ms", "finish_in_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    START_IN_MS_FIELD_NUMBER: _ClassVar[int]
    FINISH_IN_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    seeds: _containers.RepeatedScalarFieldContainer[int]
    steps: int
    queue_position: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    start_in_ms: float
    finish_in_ms: float
    def __init__(self, request_id: _Optional[str] = ..., seeds: _Optional[_Iterable[int]] = ..., steps: _Optional[int] = ..., queue_position: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ..., start_in_ms: _Optional[float] = ..., finish_in_ms: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("image_index", "step", "steps", "preview", "finish_in_ms")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    FINISH_IN_MS_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    step: int
    steps: int
    preview: Preview
    finish_in_ms: float
    def __init__(self, image_index: _Optional[int] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ..., finish_in_ms: _Optional[float] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("data", "width", "height")
    DATA_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    width: int
    height: int
    def __init__(self, data: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class ImageResult(_message.Message):
    __slots__ = ("image_index", "seed", "data", "format", "width", "height", "engine_digest", "latents", "timings", "flagged")
    IMAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    ENGINE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    FLAGGED_FIELD_NUMBER: _ClassVar[int]
    image_index: int
    seed: int
    data: bytes
    format: ImageFormat
    width: int
    height: int
    engine_digest: str
    latents: Tensor
    timings: Timings
    flagged: bool
    def __init__(self, image_index: _Optional[int] = ..., seed: _Optional[int] = ..., data: _Optional[bytes] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., engine_digest: _Optional[str] = ..., latents: _Optional[_Union[Tensor, _Mapping]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., flagged: bool = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("queue_ms", "encode_ms", "denoise_ms", "decode_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_MS_FIELD_NUMBER: _ClassVar[int]
    DENOISE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    encode_ms: float
    denoise_ms: float
    decode_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., encode_ms: _Optional[float] = ..., denoise_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ...) -> None: ...

class LoadModelRequest(_message.Message):
    __slots__ = ("bundle",)
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    bundle: str
    def __init__(self, bundle: _Optional[str] = ...) -> None: ...

class LoadModelResponse(_message.Message):
    __slots__ = ("model", "replaced_digest")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REPLACED_DIGEST_FIELD_NUMBER: _ClassVar[int]
    model: ModelInfo
    replaced_digest: str
    def __init__(self, model: _Optional[_Union[ModelInfo, _Mapping]] = ..., replaced_digest: _Optional[str] = ...) -> None: ...

class UnloadModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class UnloadModelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "digest", "family", "width", "height", "size_multiple", "max_rows", "samplers", "default_sampler", "max_tokens", "engines", "state", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    SIZE_MULTIPLE_FIELD_NUMBER: _ClassVar[int]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    SAMPLERS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SAMPLER_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENGINES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    family: str
    width: SizeRange
    height: SizeRange
    size_multiple: int
    max_rows: int
    samplers: _containers.RepeatedScalarFieldContainer[str]
    default_sampler: str
    max_tokens: int
    engines: _containers.RepeatedCompositeFieldContainer[EngineInfo]
    state: ModelState
    reason: str
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., family: _Optional[str] = ..., width: _Optional[_Union[SizeRange, _Mapping]] = ..., height: _Optional[_Union[SizeRange, _Mapping]] = ..., size_multiple: _Optional[int] = ..., max_rows: _Optional[int] = ..., samplers: _Optional[_Iterable[str]] = ..., default_sampler: _Optional[str] = ..., max_tokens: _Optional[int] = ..., engines: _Optional[_Iterable[_Union[EngineInfo, _Mapping]]] = ..., state: _Optional[_Union[ModelState, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class SizeRange(_message.Message):
    __slots__ = ("min", "default", "max")
    MIN_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    min: int
    default: int
    max: int
    def __init__(self, min: _Optional[int] = ..., default: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class EngineInfo(_message.Message):
    __slots__ = ("component", "precision", "backend", "device", "variant")
    COMPONENT_FIELD_NUMBER: _ClassVar[int]
    PRECISION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    component: str
    precision: str
    backend: str
    device: str
    variant: str
    def __init__(self, component: _Optional[str] = ..., precision: _Optional[str] = ..., backend: _Optional[str] = ..., device: _Optional[str] = ..., variant: _Optional[str] = ...) -> None: ...
