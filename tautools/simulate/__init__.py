"""The simulated model server: an OpenAI-compatible server that plays agent and user with a set skill.

It answers without a model, so that a laptop can run the whole toolkit in minutes, and because its skill is known, what
the toolkit measures can be compared with what it must measure. Everything it produces is marked SIMULATED.
"""

from tautools.simulate.responder import expected_pass_hat_k, pass_probability
from tautools.simulate.server import MARK, SimulatedServer
