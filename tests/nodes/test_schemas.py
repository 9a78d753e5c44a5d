"""What every node's schema must hold, and the ids that never change once released."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

import progressive_upsampling
from progressive_upsampling.nodes import NODES

NAMES = {
    "PU_Upsample": "Upsample",
    "PU_AdaptiveNoise": "Adaptive Noise",
    "PU_InjectNoise": "Inject Noise",
    "PU_AttnUNetDenoise": "Attention U-Net Denoise",
    "PU_MultiScaleFuse": "Multi-Scale Fuse",
    "PU_ResidualSkip": "Residual Skip",
    "PU_LoadModel": "Load Progressive Model",
    "PU_SaveModel": "Save Progressive Model",
    "PU_ProgressiveUpscale": "Progressive Upscale",
    "PU_TrainingData": "Training Data",
    "PU_TrainingLosses": "Training Losses",
    "PU_Train": "Train",
    "PU_Compare": "Compare",
}
# Ids and types are what saved workflows hold: inputs may be added, never renamed, removed or retyped.
RELEASED = {
    "PU_Upsample": "image:IMAGE method:COMBO scale:FLOAT width:INT height:INT "
    "checkpoint:COMBO stage:INT tile:INT precision:COMBO model:PU_MODEL "
    "upscale_model:UPSCALE_MODEL -> upsampled_image:IMAGE",
    "PU_AdaptiveNoise": "image:IMAGE mode:COMBO strength:FLOAT base_sigma:FLOAT stage:INT "
    "model:PU_MODEL mask:MASK -> sigma_map:MASK",
    "PU_InjectNoise": "image:IMAGE sigma:FLOAT strength:FLOAT seed:INT distribution:COMBO "
    "stage:INT sigma_map:MASK -> noisy_image:IMAGE applied_sigma_map:MASK",
    "PU_AttnUNetDenoise": "noisy_image:IMAGE sigma_map:MASK detail:FLOAT steps:COMBO stage:INT "
    "tile:INT precision:COMBO model:PU_MODEL conditioning:IMAGE detail_mask:MASK -> "
    "denoised_image:IMAGE",
    "PU_MultiScaleFuse": "image_1:IMAGE image_2:IMAGE image_3:IMAGE image_4:IMAGE image_5:IMAGE "
    "image_6:IMAGE mode:COMBO structure:COMBO weights:STRING "
    "temperature:FLOAT stage:INT model:PU_MODEL precision:COMBO -> fused_image:IMAGE "
    "weight_maps:MASK",
    "PU_ResidualSkip": "current:IMAGE previous:IMAGE mode:COMBO strength:FLOAT position:FLOAT "
    "levels:INT stage:INT model:PU_MODEL -> combined_image:IMAGE",
    "PU_LoadModel": "model_name:COMBO -> model:PU_MODEL",
    "PU_SaveModel": "model:PU_MODEL filename_prefix:STRING precision:COMBO -> file:STRING",
    "PU_ProgressiveUpscale": "image:IMAGE scale:FLOAT width:INT height:INT detail:FLOAT steps:COMBO "
    "strength:FLOAT seed:INT noise:COMBO distribution:COMBO skip:FLOAT "
    "fusion:BOOLEAN tile:INT precision:COMBO upsampler:COMBO model:PU_MODEL "
    "upscale_model:UPSCALE_MODEL detail_mask:MASK -> upscaled_image:IMAGE stages:IMAGE",
    "PU_TrainingData": "folder:STRING validation_folder:STRING validation_share:FLOAT degradation:COMBO "
    "color_jitter:FLOAT mixup:FLOAT cutblur:FLOAT flips:BOOLEAN turns:BOOLEAN images:IMAGE "
    "-> training_data:PU_TRAINING_DATA report:STRING",
    "PU_TrainingLosses": "pixel:COMBO pixel_weight:FLOAT judge:COMBO ssim:FLOAT frequency:FLOAT "
    "perceptual:FLOAT vgg:COMBO adversarial:FLOAT feature_matching:FLOAT gan:COMBO discriminator:COMBO r1:FLOAT "
    "adversarial_start:FLOAT upsampler:FLOAT refine:FLOAT blind:FLOAT controller:FLOAT "
    "spectrum:FLOAT checkerboard:FLOAT "
    "-> training_losses:PU_TRAINING_LOSSES",
    "PU_Train": "data:PU_TRAINING_DATA strategy:COMBO earlier_stages:COMBO stages:INT steps:INT batch:INT crop:INT "
    "accumulate:INT learning_rate:FLOAT seed:INT validate_every:INT keep:COMBO precision:COMBO "
    "run_name:STRING resume:BOOLEAN squeezenet:COMBO model:PU_MODEL losses:PU_TRAINING_LOSSES "
    "-> trained_model:PU_MODEL curves:IMAGE samples:IMAGE run_folder:STRING",
    "PU_Compare": "image:IMAGE reference:IMAGE heat_levels:FLOAT crop:INT -> metrics:STRING "
    "side_by_side:IMAGE heat_map:IMAGE",
}
HEAVY = ("PU_Upsample", "PU_AttnUNetDenoise", "PU_ProgressiveUpscale")


@pytest.fixture(params=NODES, ids=lambda node: node.__name__)
def node(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_the_entrypoint_gives_every_node_of_the_table() -> None:
    extension = asyncio.run(progressive_upsampling.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    assert {node.GET_SCHEMA().node_id: node.GET_SCHEMA().display_name for node in nodes} == NAMES


def test_there_is_one_file_a_node(root: Path) -> None:
    files = {path.stem for path in (root / "nodes").glob("[!_]*.py")}
    assert files == {node.__module__.rsplit(".", 1)[1] for node in NODES}
    assert len(files) == len(NODES)


def test_released_ids_and_types_are_kept(node: Any) -> None:
    schema = node.GET_SCHEMA()
    ins, outs = (" ".join(f"{p.id}:{p.io_type}" for p in ports) for ports in (schema.inputs, schema.outputs))
    assert f"{ins} -> {outs}" == RELEASED[schema.node_id]


def test_every_port_has_a_tooltip_and_every_output_a_name(node: Any) -> None:
    schema = node.GET_SCHEMA()
    assert schema.description
    for port in (*schema.inputs, *schema.outputs):
        assert port.tooltip and port.tooltip.endswith("."), port.id
    assert all(port.display_name for port in schema.outputs)


def test_nodes_lie_in_one_menu(node: Any) -> None:
    assert node.GET_SCHEMA().category.split("/")[0] == "Progressive Upsampling"


def test_execute_takes_exactly_the_inputs(node: Any) -> None:
    parameters = inspect.signature(node.execute).parameters
    ids = {port.id for port in node.GET_SCHEMA().inputs}
    named = {name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD}
    assert named <= ids
    assert named == ids or node.__name__ == "MultiScaleFuse"


def test_optional_inputs_may_be_left_out(node: Any) -> None:
    parameters = inspect.signature(node.execute).parameters
    for port in node.GET_SCHEMA().inputs:
        if port.optional and port.id in parameters:
            assert parameters[port.id].default == getattr(port, "default", None)


def test_every_widget_has_a_default_within_its_limits(node: Any) -> None:
    for port in node.GET_SCHEMA().inputs:
        if port.io_type in ("INT", "FLOAT"):
            assert port.min <= port.default <= port.max, port.id
        elif port.io_type == "COMBO" and port.id != "model_name":
            assert port.default in port.options, port.id
        elif port.io_type in ("STRING", "BOOLEAN"):
            assert port.default is not None, port.id


def test_seeds_are_controlled_after_a_run(node: Any) -> None:
    for port in node.GET_SCHEMA().inputs:
        if port.id == "seed":
            assert port.control_after_generate and port.max == 2**64 - 1


@pytest.mark.parametrize("id_", HEAVY)
def test_heavy_nodes_have_a_tile_and_a_precision(id_: str) -> None:
    (node,) = [node for node in NODES if node.GET_SCHEMA().node_id == id_]
    assert {"tile", "precision"} <= {port.id for port in node.GET_SCHEMA().inputs}


def test_the_descriptions_survive_the_way_to_the_front_end(node: Any) -> None:
    info = node.GET_NODE_INFO_V1()
    ports = {**info["input"]["required"], **info["input"].get("optional", {})}
    assert all(options["tooltip"] for _, options in ports.values())
    assert info["display_name"] == NAMES[info["name"]]
    assert len(info["output"]) == len(info["output_name"]) == len(info["output_tooltips"])
