"""The bounded channel between a run and a caller that reads it."""

from dspy_live.runtime.channel.channel import Channel, ChannelStatistics
from dspy_live.runtime.channel.reader import Reader, read

__all__ = ["Channel", "ChannelStatistics", "Reader", "read"]
