"""Results to a message broker, a window, or a function."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import cv2

from edgecv.core.stream import FrameResult, StreamFacts
from edgecv.errors import ToolchainError, UsageError
from edgecv.runtime.sinks.files import drawn

_QUEUE = 200


class Mqtt:
    """Each result as JSON to ``topic``; ``topic/status`` is a retained "online" or, by last will, "offline".

    Reconnects by itself; while the broker is away up to 200 messages wait, later ones are refused.
    """

    def __init__(self, host: str, port: int, topic: str, *, qos: int = 0) -> None:
        self._host, self._port, self._topic, self._qos = host, port, topic, qos
        self._client: Any = None

    def open(self, facts: StreamFacts) -> None:
        """See `edgecv.core.stream.Sink.open`."""
        try:
            import paho.mqtt.client as mqtt
            from paho.mqtt.enums import CallbackAPIVersion
        except ModuleNotFoundError as error:
            raise ToolchainError("paho-mqtt is not installed: pip install 'edgecv[mqtt]'") from error
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.max_queued_messages_set(_QUEUE)
        client.will_set(f"{self._topic}/status", "offline", qos=1, retain=True)
        client.reconnect_delay_set(min_delay=1, max_delay=30)
        client.on_connect = self._online
        try:
            client.connect(self._host, self._port, keepalive=20)
        except OSError as error:
            raise ToolchainError(f"the MQTT broker {self._host}:{self._port} does not answer ({error})") from error
        client.loop_start()
        self._client = client

    def write(self, item: FrameResult) -> None:
        """See `edgecv.core.stream.Sink.write`."""
        if self._client is None:
            raise UsageError("the MQTT sink is not open")
        sent = self._client.publish(self._topic, json.dumps(item.to_dict(), separators=(",", ":")), qos=self._qos)
        if sent.rc != 0:
            raise ToolchainError(f"the MQTT broker {self._host}:{self._port} is away (code {sent.rc})")

    def close(self) -> None:
        """See `edgecv.core.stream.Sink.close`."""
        client, self._client = self._client, None
        if client is not None:
            client.publish(f"{self._topic}/status", "offline", qos=1, retain=True)
            client.disconnect()
            client.loop_stop()

    def _online(self, client: Any, *_: Any) -> None:
        client.publish(f"{self._topic}/status", "online", qos=1, retain=True)


class Window:
    """A window on this machine's screen; closing it or pressing q ends nothing, the loop goes on."""

    def __init__(self, title: str = "edgecv") -> None:
        self._title = title
        self._shown = False

    def open(self, facts: StreamFacts) -> None:
        """See `edgecv.core.stream.Sink.open`."""
        built = any("GUI:" in line and "NONE" not in line for line in cv2.getBuildInformation().splitlines())
        if not built:
            raise ToolchainError("this OpenCV is a build without windows; use --live :8080 and a browser instead")
        if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ToolchainError("there is no display here; use --live :8080 and a browser instead")

    def write(self, item: FrameResult) -> None:
        """See `edgecv.core.stream.Sink.write`."""
        cv2.imshow(self._title, drawn(item))
        cv2.waitKey(1)
        self._shown = True

    def close(self) -> None:
        """See `edgecv.core.stream.Sink.close`."""
        if self._shown:
            cv2.destroyWindow(self._title)
            self._shown = False


class Callback:
    """A Python function that gets each result."""

    def __init__(self, function: Callable[[FrameResult], object]) -> None:
        self._function = function

    def open(self, facts: StreamFacts) -> None:
        """See `edgecv.core.stream.Sink.open`."""

    def write(self, item: FrameResult) -> None:
        """See `edgecv.core.stream.Sink.write`."""
        self._function(item)

    def close(self) -> None:
        """See `edgecv.core.stream.Sink.close`."""
