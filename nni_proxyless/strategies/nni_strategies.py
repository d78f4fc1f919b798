"""NNI's own strategies with a latency term and decoding within a budget, for a fair comparison with ProxylessNAS.

NNI's penalty has no gradient (docs/nni.md). So DARTS, GumbelDARTS and NNI's Proxyless get a latency term with a
gradient, CE + λ (E / ref - 1) by default. ENAS gets the latency in its reward, accuracy × (ref / latency)^w. The
learning algorithms themselves are NNI's.
"""

from .nni_differentiable import Differentiable, LatencyDARTS, LatencyGumbelDARTS, LatencyNniProxyless, LatencyTerm
from .nni_enas import POLICY_SAMPLES, LatencyENAS, RewardTerm
from .nni_strategy import NniStrategy
from .random_search import RandomSearch

__all__ = [
    "POLICY_SAMPLES",
    "Differentiable",
    "LatencyDARTS",
    "LatencyENAS",
    "LatencyGumbelDARTS",
    "LatencyNniProxyless",
    "LatencyTerm",
    "NniStrategy",
    "RandomSearch",
    "RewardTerm",
]
