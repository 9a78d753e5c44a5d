"""From a subgraph blueprint to the API format that a front end queues for it."""

from __future__ import annotations

from typing import Any

from ..workflows.graphs import Info, is_widget, ports, widget_names

ENTRY, EXIT = -10, -20  # the nodes of a subgraph that its own inputs and outputs hang on


def flatten(
    blueprint: dict[str, Any], infos: dict[str, Info], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The nodes inside, and what each output of the blueprint comes from.

    Args:
        blueprint: the file.
        infos: of every node inside.
        given: values or sources for the blueprint's inputs; widgets that are not in it keep the file's value.
    """
    (node,), (graph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    widgets = [port["name"] for port in node["inputs"] if is_widget(port["type"])]
    outer = dict(zip(widgets, node["widgets_values"], strict=True)) | given
    entries = [port["name"] for port in graph["inputs"]]
    links = {link["id"]: link for link in graph["links"]}
    prompt = {}
    for inner in graph["nodes"]:
        info = infos[inner["type"]]
        inputs = dict(zip(widget_names(info), inner["widgets_values"], strict=True))
        inputs.pop(None, None)
        for port in inner["inputs"]:
            if port["link"] is None:
                continue
            link = links[port["link"]]
            if link["origin_id"] != ENTRY:
                inputs[port["name"]] = [str(link["origin_id"]), link["origin_slot"]]
            elif (name := entries[link["origin_slot"]]) in outer:
                inputs[port["name"]] = outer[name]
        prompt[str(inner["id"])] = {
            "class_type": inner["type"],
            "inputs": {name: inputs[name] for name in ports(info) if name in inputs},
        }
    ends = {links[id_]["target_slot"]: links[id_] for port in graph["outputs"] for id_ in port["linkIds"]}
    results = {
        port["name"]: [str(ends[slot]["origin_id"]), ends[slot]["origin_slot"]]
        for slot, port in enumerate(graph["outputs"])
    }
    return prompt, results
