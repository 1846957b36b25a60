"""The one way to models: a lean streaming client, litellm for hosted providers, replicas, records of calls."""

from tautools.llm.client import ModelClient, Retry
from tautools.llm.hosted import check_hosted_key
from tautools.llm.stream import Timeouts
