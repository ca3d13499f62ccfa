"""Sharded networks train as whole ones do, on one, two and three processes over gloo."""

import contextlib
import dataclasses
import faulthandler
import json
import math
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from sharded import Case, train
from test_world import in_processes
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from pdmd.errors import UserError
from pdmd.models.adapters import SharedBase, checkpoint_activations, transformers_of
from pdmd.models.base import Prompted
from pdmd.models.families import FAMILIES, load_velocity
from pdmd.models.rows import first_row, gathered, local, whole
from pdmd.models.streamed import empty_transformer, fill, make_room
from pdmd.models.tiny import write_tiny
from pdmd.training import world as processes
from pdmd.training.parallel import materialise, mesh_of, shard
from pdmd.training.world import ALONE, World

CASES = [
    *(Case(family, phase) for family in ("qwen-image", "wan2.1-t2v-14b") for phase in (1, 2)),
    *(Case("wan2.2-t2v-a14b", phase) for phase in (1, 2)),
    Case("wan2.2-i2v-a14b", 2),
    *(Case(f, 2, "full") for f in ("qwen-image", "wan2.1-t2v-14b", "wan2.2-t2v-a14b")),
    Case("wan2.2-t2v-a14b", 1, "full"),
    Case("wan2.1-t2v-14b", 2, "lora", (("rollout", "reuse"), ("microbatch", None))),
    Case("wan2.2-t2v-a14b", 2, "lora", (("checkpointing", False), ("backward", "all"))),
    Case("qwen-image", 2, "lora", (("exits", "stratified"), ("batch", 12))),
]
SHORT = Case("wan2.2-t2v-a14b", 2)
OTHERS = ("qwen-image", "wan2.2-t2v-a14b")
# Of the largest of a role's gradients, of a logged value, of a tensor of weights: AdamW divides by
# gradients, so that a last bit of a small one is more of a weight.
TOLERANCE = {"gradient": 1e-4, "log": 1e-3}
WEIGHTS = 2e-3


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a tiny model of each family, made when it is asked for."""
    folder = tmp_path_factory.mktemp("models")

    def model(family):
        if not (folder / family).exists():
            write_tiny(family, folder / family)
        return folder / family

    return model


def distance(one, other):
    """What differs most: (error over tolerance, name)."""
    assert one.keys() == other.keys()
    worst, largest = (0.0, ""), {}
    for name in one:
        group = name.rpartition("/")[0] if name.startswith("gradient") else name
        largest[group] = max(largest.get(group, 0.0), float(one[name].abs().max()))
    for name in one:
        if name.endswith("fake_lag"):  # a small difference of large losses
            continue
        size = largest.get(name, largest.get(name.rpartition("/")[0]))
        allowed = TOLERANCE.get(name.split("/")[0], WEIGHTS) * max(size, 1e-6)
        worst = max(worst, (float((one[name] - other[name]).abs().max()) / allowed, name))
    return worst


def compare(case, models, processes, folder, updates=3, **options):
    """How far so many processes end from one that shares nothing."""
    model = models(case.family)
    alone = train(case, model, ALONE, False, updates)
    shares = in_processes(
        processes, lambda w: train(case, model, w, True, updates, **options), folder
    )
    return [distance(alone, found) for found in shares]


def test_two_processes_that_share_networks_train_what_one_trains(models, tmp_path):
    """Wan2.2's second phase: one generator and both fakes, behind frozen experts."""
    for error, name in compare(SHORT, models, 2, tmp_path / "x", 2):
        assert error < 1, name


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sharded_networks_train_what_whole_ones_do(case, processes, models, tmp_path):
    for error, name in compare(case, models, processes, tmp_path / "x"):
        assert error < 1, name


@pytest.mark.long
def test_compiled_blocks_of_sharded_networks_train_what_whole_ones_do(models, tmp_path):
    """In two processes; without the code generator, whose rounding test_speed.py looks at."""
    model, case = models(SHORT.family), dataclasses.replace(SHORT, compiled=True)

    def compiled(world):
        before = counters["frames"]["ok"]
        found = train(case, model, world, True, 2)
        return {**found, "compiled": torch.tensor(counters["frames"]["ok"] - before)}

    alone = train(SHORT, model, ALONE, False, 2)
    for found in in_processes(2, compiled, tmp_path / "x"):
        assert found.pop("compiled") > 10
        idle = found.keys() - alone.keys()  # what no loss depends on: zeros in the place of none
        assert not any(found.pop(name).any() for name in idle)
        error, name = distance(alone, found)
        assert error < 1, name


# ---- controls


def own_region(trainer):
    """Each process draws the side of two experts by itself."""
    faulthandler.disable()  # what breaks off need not say where
    side = float(trainer.world.rank % 2)
    phase = trainer.phase
    trainer._times = lambda drawn, _: phase.region_times(drawn, torch.full_like(drawn, side))


def own_exit(trainer):
    """Each process draws its exit step by itself."""
    faulthandler.disable()
    own = trainer.phase.first + trainer.world.rank % 2
    trainer._exits = lambda stream, rows: torch.full((rows,), own)


def by_diffusers(network):
    """Checkpointing that makes activations again under whatever adapter is active then."""
    for net in transformers_of(network):
        net.enable_gradient_checkpointing()


@pytest.mark.long
@pytest.mark.parametrize("change", [own_region, own_exit])
def test_processes_that_call_unlike_each_other_do_not(change, models, tmp_path, monkeypatch):
    """They hang, break off, or are silently wrong."""
    monkeypatch.setattr(processes, "TIMEOUT", timedelta(seconds=8))
    with contextlib.suppress(UserError):  # a process has left nothing
        assert compare(SHORT, models, 2, tmp_path / "x", change=change)[0][0] > 100


@pytest.mark.long
def test_checkpointing_that_does_not_know_of_adapters_is_wrong(models, tmp_path):
    with contextlib.suppress(UserError):  # it breaks off
        found = compare(SHORT, models, 1, tmp_path / "x", checkpoint=by_diffusers)
        assert found[0][0] > 100


# ---- weights that nobody has as a whole


class Living(TorchDispatchMode):
    """The bytes of memory that tensors hold, at most, and the largest single one."""

    def __init__(self):
        super().__init__()
        self.living, self.peak, self.largest = {}, 0, 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        made = function(*arguments, **(keywords or {}))
        for one in made if isinstance(made, list | tuple) else [made]:
            if type(one) is torch.Tensor and one.device.type == "cpu":
                self.see(one)
        return made

    def see(self, tensor):
        size = tensor.numel() * tensor.element_size()
        storage = tensor.untyped_storage()
        self.living = {k: one for k, one in self.living.items() if not one[0].expired()}
        self.living.setdefault(storage._cdata, (StorageWeakRef(storage), size))
        self.largest = max(self.largest, size)
        self.peak = max(self.peak, sum(size for _, size in self.living.values()))


def bytes_of(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def loaded(world, folder, empty):
    """The bytes that a network and an adapter took while they came, and its own."""
    family = FAMILIES["wan2.1-t2v-14b"]
    with mesh_of(world) as mesh, Living() as living:
        network = load_velocity(folder, family, torch.bfloat16, empty=empty)
        if empty:
            shared = SharedBase(network, 4, 2)
            shared.add("fake", 0, True)
            shard(network, mesh)
            materialise(network, {"": folder / "transformer"}, world.device)
    tensors = dict(network.named_parameters())
    adapters = [p for name, p in tensors.items() if "lora_" in name]
    weights = [p for name, p in tensors.items() if "lora_" not in name]
    values = {
        "peak": living.peak,
        "largest": living.largest,
        "own": bytes_of(map(local, weights)),
        "all": bytes_of(weights),
        "adapters": bytes_of(adapters),
        "parameter": max(bytes_of([p]) for p in weights),
    }
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A model of many blocks, each a small part of it."""
    from diffusers import WanTransformer3DModel

    folder = tmp_path_factory.mktemp("deep")
    net = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=24,
        text_dim=32,
        freq_dim=32,
        ffn_dim=128,
        num_layers=12,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )
    net.save_pretrained(folder / "transformer", max_shard_size="300KB")
    return folder


@pytest.mark.long
def test_no_process_holds_a_model_while_weights_are_read(deep, tmp_path):
    for found in in_processes(2, lambda world: loaded(world, deep, True), tmp_path / "x"):
        every = {name: int(value) for name, value in found.items()}
        assert every["own"] < 0.52 * every["all"]
        assert every["largest"] <= 2 * every["parameter"]  # in float32 for a moment
        # what it keeps, adapters as they were drawn, and two tensors on their way
        assert every["peak"] < every["own"] + every["adapters"] + 4 * every["parameter"]
        assert every["peak"] < every["all"]
    (found,) = in_processes(1, lambda world: loaded(world, deep, False), tmp_path / "y")
    assert found["peak"] >= found["all"]  # control: read by from_pretrained


def read(world, folder, family, dtype):
    """A network's weights, read by rows and put together again."""
    with mesh_of(world) as mesh:
        network = load_velocity(folder, FAMILIES[family], dtype, 0.875, empty=True)
        shared = SharedBase(network, 4, 2)
        shared.add("generator", 3, True)
        shard(network, mesh)
        names = ("high", "low") if FAMILIES[family].experts == 2 else ("",)
        parts = zip(names, FAMILIES[family].transformers, strict=True)
        materialise(network, {name: folder / of for name, of in parts}, world.device)
        return gathered(dict(network.named_parameters()))


@pytest.mark.parametrize(
    "family", ["wan2.1-t2v-14b", *(pytest.param(f, marks=pytest.mark.long) for f in OTHERS)]
)
def test_rows_read_apart_are_the_files_weights(models, family, tmp_path):
    """Their types, too, and the adapters that are drawn on them; 3 divides few sizes."""
    folder, dtype = models(family), torch.bfloat16
    shared = SharedBase(load_velocity(folder, FAMILIES[family], dtype, 0.875), 4, 2)
    shared.add("generator", 3, True)
    wanted = dict(shared.network.named_parameters())
    for found in in_processes(3, lambda w: read(w, folder, family, dtype), tmp_path / "x"):
        assert found.keys() == wanted.keys()
        for name, tensor in found.items():
            assert tensor.dtype == wanted[name].dtype, name
            assert torch.equal(tensor, wanted[name]), name
    other = SharedBase(load_velocity(folder, FAMILIES[family], dtype, 0.875), 4, 2)
    other.add("generator", 4, True)  # control: another seed draws another adapter
    assert any(not torch.equal(p, wanted[n]) for n, p in other.network.named_parameters())


def test_a_tensor_that_a_file_lacks_is_named(models, tmp_path):
    source = models("wan2.1-t2v-14b") / "transformer"
    folder = tmp_path / "transformer"
    folder.mkdir()
    (folder / "config.json").write_text((source / "config.json").read_text())
    state = {}
    for path in source.glob("*.safetensors"):
        state |= load_file(path)
    for change, message in (
        (lambda s: s.pop("proj_out.bias"), r"transformer: proj_out\.bias: missing"),
        (
            lambda s: s.update({"proj_out.bias": torch.zeros(3)}),
            r"expected proj_out\.bias of shape",
        ),
        (
            lambda s: s.update({"proj_out.bias": s["proj_out.bias"] * math.nan}),
            r"x\.safetensors: proj_out\.bias: not finite",
        ),
    ):
        changed = dict(state)
        change(changed)
        save_file(changed, folder / "x.safetensors")
        net = empty_transformer(folder, "WanTransformer3DModel", torch.float32)
        make_room(net, torch.device("cpu"))
        with pytest.raises(UserError, match=message):
            fill(net, folder)
    save_file(state, folder / "x.safetensors")
    fill(net, folder)  # control
    (folder / "config.json").write_text(json.dumps({"num_layers": "two"}))
    with pytest.raises(UserError, match="expected a WanTransformer3DModel"):
        empty_transformer(folder, "WanTransformer3DModel", torch.float32)


def test_a_tensor_that_is_whole_is_all_here():
    x = torch.randn(4, 3)
    assert local(x) is x
    assert whole(x) is x
    assert first_row(x) == 0
    assert gathered({"x": x})["x"] is x


# ---- plans


def test_an_update_is_planned_on_tensors_without_memory(models):
    """Eight processes that are not there, an adapter and a whole network in two precisions."""
    folder, family = models("wan2.1-t2v-14b"), FAMILIES["wan2.1-t2v-14b"]
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        with mesh_of(World(0, 8)) as mesh:
            base = load_velocity(folder, family, torch.bfloat16, empty=True)
            adapter = SharedBase(base, 4, 2, empty=True).add("generator", 0, True)
            full = load_velocity(folder, family, torch.float32, empty=True).requires_grad_(True)
            for network, computes in ((base, None), (full, torch.bfloat16)):
                checkpoint_activations(network)
                shard(network, mesh, computes)
            with FakeTensorMode(allow_non_fake_inputs=True), Living() as living:
                for net in (*transformers_of(base), *transformers_of(full)):
                    make_room(net, torch.device("cpu"))
                condition = Prompted(torch.randn(1, 8, 32), torch.tensor([8]))
                for velocity in (adapter, full):
                    v = velocity(torch.randn(1, 16, 2, 4, 6), torch.tensor([0.5]), condition)
                    v.square().mean().backward()
                    parameters = [p for p in velocity.parameters() if p.requires_grad]
                    torch.optim.AdamW(parameters, fused=True).step()
                    assert all(p.grad is not None for p in parameters)
                    assert isinstance(local(parameters[0]), FakeTensor)
        own = sum(local(p).numel() for p in full.parameters())
        every = sum(p.numel() for p in full.parameters())
        assert every / 8 <= own < 0.2 * every  # rows of few, which 8 do not divide
        assert living.peak < 10_000  # positions, and numbers
    finally:
        dist.destroy_process_group()
