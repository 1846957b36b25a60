"""The one door to models: a lean streaming client, litellm for hosted providers, replicas, records of calls."""

from tautools.llm.door import ModelDoor
from tautools.llm.hosted import check_hosted_key
from tautools.llm.patience import Retry, Timeouts

__all__ = ["ModelDoor", "Retry", "Timeouts", "check_hosted_key"]
