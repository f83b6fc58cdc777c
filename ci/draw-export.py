#!/usr/bin/env python3
"""Draws a Perfetto export as a picture: tracks, slices, instants, and flows.

    peerdma trace export TRACE test=NAME --to perfetto --out x.perfetto
    ci/draw-export.py x.perfetto x.svg [FROM TO]

FROM and TO are seconds since the recording began. Needs the Python packages perfetto and matplotlib.
"""
import sys
from collections import defaultdict

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

BEGIN, END, INSTANT = 1, 2, 3
# Findings whose sentence stands below the picture, and as much of it.
SENTENCES, WIDTH = 20, 200


def read(path):
    """Tracks by their numbers, each with its parent, and events by time."""
    trace = Trace()
    with open(path, "rb") as file:
        trace.ParseFromString(file.read())
    tracks, events = {}, []
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = (track.name, track.parent_uuid)
        else:
            events.append((packet.timestamp / 1e6, packet.track_event))
    events.sort(key=lambda event: event[0])
    return tracks, events


def slices(events, last):
    """Track, begin, end (none if it does not end) and name of each slice."""
    open_slices, done = defaultdict(list), []
    for time, event in events:
        if event.type == BEGIN:
            open_slices[event.track_uuid].append((time, event.name))
        elif event.type == END and open_slices[event.track_uuid]:
            begun, name = open_slices[event.track_uuid].pop()
            done.append((event.track_uuid, begun, time, name))
    for track, left in open_slices.items():
        done += [(track, begun, last, name + " ...") for begun, name in left]
    return done


def throughout(tracks, boxes, first, last):
    """Mappings in force all the time, in one row for each function and kind; the rest as it is."""
    always, rest = defaultdict(list), []
    for box in boxes:
        if box[0] >> 32 and box[1] <= first and box[2] >= last:
            always[tracks[box[0]]].append(box)
        else:
            rest.append(box)
    busy = {box[0] for box in rest}
    for same in always.values():
        # Not where something else is.
        free = [box for box in same if box[0] not in busy]
        track = free[0][0] if free else same[0][0]
        rest.append((track, first, last, same[0][3] if len(same) == 1 else f"{len(same)} mappings all the time"))
    return rest


def order(tracks, used):
    """Tracks with something on them, each child below its parent."""
    roots = [uuid for uuid, (_, parent) in tracks.items() if not parent]
    rows = []
    for root in roots:
        children = [uuid for uuid, (_, parent) in tracks.items() if parent == root]
        rows += [uuid for uuid in [root] + children if uuid in used]
    return rows


def style(event):
    """Marker, colour and size of an instant."""
    if "finding" in event.categories and "text" in [note.name for note in event.debug_annotations]:
        return "D", "#d02020", 90
    if event.name.startswith("register write"):
        return ">", "#2060c0", 60
    if event.name.endswith("interrupt"):
        return "*", "#108030", 110
    if event.name.endswith(" data"):
        return "s", "#d02020" if "finding" in event.categories else "#e08000", 40
    return "|", "#808080", 50


def words(event):
    """The sentence of a finding."""
    text = next(note.string_value for note in event.debug_annotations if note.name == "text")
    return text if len(text) <= WIDTH else text[:WIDTH] + " ..."


def main():
    tracks, events = read(sys.argv[1])
    times = [time for time, _ in events]
    first, last = min(times), max(times)
    if len(sys.argv) > 4:
        first, last = float(sys.argv[3]) * 1000, float(sys.argv[4]) * 1000
    else:
        # Mappings may have been made long before the rest.
        shown = [time for time, event in events if event.track_uuid >> 32 == 0]
        first, last = min(shown), max(shown)
    margin = (last - first) * 0.02 or 0.001
    first, last = first - margin, last + margin
    boxes = [box for box in slices(events, last) if box[2] >= first and box[1] <= last]
    points = [(time, event) for time, event in events if event.type == INSTANT and first <= time <= last]
    boxes = throughout(tracks, boxes, first, last)
    rows = order(tracks, {box[0] for box in boxes} | {event.track_uuid for _, event in points})
    height = {uuid: index for index, uuid in enumerate(rows)}
    figure, axes = plt.subplots(figsize=(18, 1.5 + 0.42 * len(rows)))
    for track, begun, ended, name in boxes:
        left, right = max(begun, first), min(ended, last)
        colour = "#c8d8f0" if track >> 32 else "#d8ecd0"
        width = max(right - left, (last - first) / 2000)
        axes.barh(height[track], width, left=left, height=0.8, color=colour, edgecolor="#8090a0", linewidth=0.5)
        if (right - left) > (last - first) * 0.007 * len(name):
            axes.text(left, height[track], " " + name, va="center", fontsize=8, clip_on=True)
    flows, sentences = defaultdict(list), []
    for time, event in points:
        marker, colour, size = style(event)
        axes.scatter(time, height[event.track_uuid], marker=marker, color=colour, s=size, zorder=3)
        if marker == "D":
            sentences.append(f"{len(sentences) + 1}: {words(event)}")
            axes.annotate(str(len(sentences)), (time, height[event.track_uuid]), (5, 6), textcoords="offset points",
                          color=colour, fontsize=11, weight="bold", zorder=5)
        for flow in list(event.flow_ids) + list(event.terminating_flow_ids):
            flows[flow].append((time, height[event.track_uuid]))
    for places in flows.values():
        for start, end in zip(places, places[1:]):
            axes.annotate("", end, start, zorder=2, arrowprops={
                "arrowstyle": "->", "color": "#7040a0", "alpha": 0.6, "connectionstyle": "arc3,rad=-0.15"})
    for name, marker, colour in [("doorbell (register write)", ">", "#2060c0"), ("transfer", "s", "#e08000"),
                                 ("transfer with a finding", "s", "#d02020"), ("interrupt", "*", "#108030"),
                                 ("finding", "D", "#d02020"), ("other", "|", "#808080")]:
        axes.scatter([], [], marker=marker, color=colour, s=60, label=name)
    axes.plot([], [], color="#7040a0", alpha=0.6, label="flow")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.0 + 0.9 / len(rows)), ncol=7, fontsize=9, frameon=False)
    axes.set_yticks(range(len(rows)), [tracks[uuid][0] for uuid in rows], fontsize=9)
    axes.set_xlim(first, last)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("\n".join(["milliseconds since the recording began", ""] + sentences[:SENTENCES]), fontsize=9)
    axes.grid(axis="x", alpha=0.3)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
    main()
