"""The architecture file (schema `nni-proxyless/architecture@1`): load, save, validate and build.

The file contains the description of its search space. So the network can be built in another process or on another
machine, without the search's checkpoint and without NNI.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ArchitectureError, SpaceError, shown
from ..files.reading import read_mapping
from ..files.writing import write_json
from ..image_size import ImageSize
from ..values import is_whole
from .architecture_details import file_details, restored_choices, stored_choices
from .operators import Operator, total_multiply_adds, total_parameters
from .space_spec import SKIP, SpaceSpec, Stage

if TYPE_CHECKING:  # files are checked without torch
    from .plain_network import Network

ARCHITECTURE_SCHEMA = "nni-proxyless/architecture@1"


@dataclass(frozen=True)
class Architecture:
    """One network of a search space, and its origin.

    Attributes:
        space_name: Name of the space.
        space_hash: Content hash of the space. Files of the same space have the same hash.
        choices: Mapping from the label of each searched layer to the chosen candidate.
        spec: Description of the space. `None` if the space is a model class of the user's own, which this package
            cannot build.
        target: Name of the hardware target, if any.
        strategy: Name of the strategy that found the network.
        budget_ms: Latency budget in milliseconds, if any.
        predicted_latency_ms: Latency in milliseconds, predicted from the target's latency table.
        measured_latency_ms: Latency in milliseconds, measured on the built network; `None` until it is measured.
        metrics: Metrics that the search reported for the network.
        seed: Random seed of the search.
        versions: Mapping from package names to versions.
        trial_parameters: Parameters that the trial received from NNI's manager, so that its result is never credited
            to another trial.
        warnings: Warnings of the search about its own result.
        budgets: Limit and value of each budgeted quantity, by its name; see `decoding.budgets`.
    """

    space_name: str
    space_hash: str
    choices: Mapping[str, Any]
    spec: SpaceSpec | None = None
    target: str | None = None
    strategy: str | None = None
    budget_ms: float | None = None
    predicted_latency_ms: float | None = None
    measured_latency_ms: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    trial_parameters: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    budgets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of_space(cls, spec: SpaceSpec, choices: Mapping[str, str], **details: Any) -> Architecture:
        """Create an architecture of a described space.

        Raises:
            ArchitectureError: The choices do not fit the space.
        """
        try:
            spec.choice_operators(choices)
        except SpaceError as reason:
            raise ArchitectureError(str(reason)) from reason
        return cls(spec.name, spec.content_hash, dict(choices), spec, **details)

    @classmethod
    def from_blocks(
        cls,
        blocks: Sequence[Mapping[str, Any]],
        *,
        stem_width: int,
        head_width: int,
        name: str = "from_blocks",
        input_size: ImageSize = 224,
        classes: int = 1000,
        kernels: tuple[int, ...] = (3, 5, 7),
        expansions: tuple[int, ...] = (3, 6),
    ) -> Architecture:
        """Rebuild a network from a list of its blocks, the form in which the published networks are given.

        Args:
            blocks: The first block, followed by all layers. Each entry is `{"op": "skip"}` or `{"op": "mbconv", "in",
                "out", "kernel", "expansion", "stride"}`. A layer whose output width differs from the previous layer's
                starts a new stage.
            stem_width: Channels after the stem.
            head_width: Channels before pooling.
            name: Name of the resulting space.
            input_size: Height and width of an image: a number for a square, else a tuple.
            classes: Number of classes.
            kernels: Candidate kernel sizes of the resulting space.
            expansions: Candidate expansion ratios of the resulting space.

        Raises:
            ArchitectureError: The blocks do not describe a network of this kind.
        """
        first = blocks[0] if blocks else {}
        if first.get("op") != "mbconv" or (first.get("kernel"), first.get("expansion")) != (3, 1):
            raise ArchitectureError(f"the first block must be an mbconv of kernel 3 and expansion 1, got {first}")
        stages: list[Stage] = []
        names: list[list[str]] = []
        for block in blocks[1:]:
            if block["op"] == SKIP:
                if not stages:
                    raise ArchitectureError("the first layer of a stage cannot be skipped")
                names[-1].append(SKIP)
            else:
                if not stages or block["out"] != stages[-1].width:
                    stages.append(Stage(block["out"], 1, block["stride"]))
                    names.append([])
                names[-1].append(f"k{block['kernel']}_e{block['expansion']}")
            stages[-1] = Stage(stages[-1].width, len(names[-1]), stages[-1].stride)
        spec = SpaceSpec(
            name=name,
            input_channels=3,
            input_size=input_size,
            stem_width=stem_width,
            stem_stride=2,
            first_width=first["out"],
            stages=tuple(stages),
            kernels=kernels,
            expansions=expansions,
            skip=True,
            head_width=head_width,
            classes=classes,
        )
        flat = [candidate for stage in names for candidate in stage]
        architecture = cls.of_space(spec, dict(zip((layer.label for layer in spec.layers), flat, strict=True)))
        expected = [block["in"] for block in blocks if block["op"] != SKIP]
        built = [op.input_shape[0] for op in architecture.operators()[1:-2]]
        if expected != built:
            raise ArchitectureError(f"the blocks' input widths {expected} do not follow from their output widths")
        return architecture

    @classmethod
    def published(cls, name: str) -> Architecture:
        """Return a network published with ProxylessNAS, for ImageNet, without its trained weights.

        Args:
            name: `proxyless_cpu`, `proxyless_gpu`, `proxyless_mobile` or `proxyless_mobile_14`.

        Examples:
            >>> round(Architecture.published("proxyless_mobile").multiply_adds / 1e6)
            320

        Raises:
            ArchitectureError: There is no published network of that name.
        """
        from . import catalogue

        return cls.of_space(*catalogue.published(name))

    @classmethod
    def mobilenet_v2(cls, width_mult: float = 1.0, like: SpaceSpec | None = None) -> Architecture:
        """Return MobileNetV2 (Sandler et al. 2018, table 2), the baseline.

        Args:
            width_mult: Factor on all widths.
            like: Space that provides image size, classes, stem, stages and head. Default: those of MobileNetV2.

        Raises:
            ArchitectureError: `width_mult` is not a positive number.
        """
        from . import catalogue

        return cls.of_space(*catalogue.mobilenet_v2(width_mult, like))

    def for_images(self, size: ImageSize | Sequence[int] | None, channels: int | None = None) -> Architecture:
        """Return the same network for images of another size or number of channels.

        Its latencies are left out if the images differ from those that they are for.

        Args:
            size: Height and width of an image, one number or two; by default as before.
            channels: Channels of an image; by default as before.

        Raises:
            ArchitectureError: The architecture belongs to a model space that this package cannot describe.
            SpaceError: A value is out of range.
        """
        if size is None and channels is None:
            return self
        spec = self.require_spec()
        changed = spec.with_changes(input_size=size, input_channels=channels)
        if changed == spec:
            return self
        return replace(
            self, spec=changed, space_hash=changed.content_hash, predicted_latency_ms=None, measured_latency_ms=None
        )

    def require_spec(self) -> SpaceSpec:
        """Return the description of the space.

        Raises:
            ArchitectureError: The architecture belongs to a model space that this package cannot describe.
        """
        if self.spec is None:
            raise ArchitectureError(
                f"a network of '{self.space_name}' cannot be built from a file: it is of a model class of your own; "
                "freeze that class with the file's choices instead"
            )
        return self.spec

    @property
    def candidate_names(self) -> str:
        """The chosen candidates of all layers in one line. Equal networks of a space have equal lines."""
        return " ".join(str(self.choices[label]) for label in self.layer_labels)

    @property
    def layer_labels(self) -> list[str]:
        """Labels of the layers, in execution order if the space is described, otherwise in sorted order."""
        return [layer.label for layer in self.spec.layers] if self.spec else sorted(self.choices)

    def operators(self) -> list[Operator]:
        """All operators, in execution order."""
        return self.require_spec().operators(self.choices)

    def build(self, pretrained: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> Network:
        """Build a plain network without any search code: (batch, channels, height, width) to (batch, classes).

        Args:
            pretrained: Weights to load: a state dict, or the path of a weights file such as a retraining's
                `weights.pt`. By default, the network is freshly initialised.

        Raises:
            ArchitectureError: The file cannot be read, or the weights belong to another architecture.
        """
        from .plain_network import Network

        spec = self.require_spec()
        blocks = [spec.first_block, *spec.choice_operators(self.choices)]
        network = Network(spec.stem, blocks, spec.head, spec.classifier, spec.norm)
        if pretrained is not None:
            from .weights import load_into

            load_into(network, pretrained)
        return network

    def diff(self, other: Architecture) -> list[tuple[str, str | None, str | None]]:
        """List the layers in which two architectures differ.

        Returns:
            For each such layer its label, the candidate of this architecture and the candidate of the other one. A
            candidate is `None` if that architecture has no such layer.
        """
        labels = dict.fromkeys((*self.layer_labels, *other.layer_labels))
        pairs = ((label, self.choices.get(label), other.choices.get(label)) for label in labels)
        return [(label, mine, theirs) for label, mine, theirs in pairs if mine != theirs]

    @property
    def parameters(self) -> int:
        return total_parameters(self.operators())

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image."""
        return total_multiply_adds(self.operators())

    def to_dict(self) -> dict[str, Any]:
        known = self.spec is not None
        return {
            "schema": ARCHITECTURE_SCHEMA,
            "space": {
                "name": self.space_name,
                "hash": self.space_hash,
                "spec": self.spec.to_dict() if self.spec is not None else None,
            },
            "choices": stored_choices(self.choices),
            "target": self.target,
            "strategy": self.strategy,
            "budget_ms": self.budget_ms,
            "predicted_latency_ms": self.predicted_latency_ms,
            "measured_latency_ms": self.measured_latency_ms,
            "parameters": self.parameters if known else None,
            "multiply_adds": self.multiply_adds if known else None,
            "metrics": dict(self.metrics),
            "seed": self.seed,
            "versions": dict(self.versions),
            "trial_parameters": dict(self.trial_parameters),
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            **({"budgets": {name: dict(values) for name, values in self.budgets.items()}} if self.budgets else {}),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str], space: SpaceSpec | None = None) -> Architecture:
        """Load an architecture file and validate it.

        Args:
            path: Path of the file.
            space: Space that the architecture must belong to. By default, any space is accepted.

        Raises:
            ArchitectureError: The file cannot be read, is malformed, or belongs to another space.
        """
        return cls.from_dict(read_mapping(path, "architecture", ArchitectureError), f"architecture {path}", space)

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], source: str = "architecture", space: SpaceSpec | None = None
    ) -> Architecture:
        """Create an architecture from the content of a file and validate it; see `load`."""
        details = file_details(content, source, ARCHITECTURE_SCHEMA)
        identity, choices = content["space"], restored_choices(content["choices"])
        name, digest = identity["name"], identity["hash"]
        if space is not None and digest != space.content_hash:
            raise ArchitectureError(
                f"{source} is of space '{name}' ({digest}), not of '{space.name}' ({space.content_hash}): "
                "use the space it was searched in"
            )
        described = identity.get("spec")
        if described is None:
            return cls(name, digest, choices, **details)
        if not isinstance(described, Mapping):
            raise ArchitectureError(f"{source}: 'space.spec' must be a mapping or null, got {shown(described)}")
        try:
            spec = SpaceSpec.from_dict(described, f"{source}: space")
        except SpaceError as reason:
            raise ArchitectureError(str(reason)) from reason
        if spec.content_hash != digest:
            raise ArchitectureError(
                f"{source}: the space's description has hash {spec.content_hash}, but the file says {digest}: "
                "the file was changed by hand"
            )
        made = cls.of_space(spec, choices, **details)
        for key in ("parameters", "multiply_adds"):
            given, counted = content.get(key), getattr(made, key)
            if given is not None and (given != counted or not is_whole(given)):
                raise ArchitectureError(
                    f"{source}: '{key}' is {shown(given)}, but the network has {counted}: the file was changed by hand"
                )
        return made
