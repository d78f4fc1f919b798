"""`proxyless` with batch-norm's running statistics in architecture steps, to try it beside those of the batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from nni_proxyless.strategy import ProxylessNAS


class RunningStatistics(ProxylessNAS):
    """As a recipe's strategy: `running_statistics:RunningStatistics`."""

    def configure_oneshot_module(self, training_module: Any) -> Any:
        module = super().configure_oneshot_module(training_module)
        step = module.architecture_step

        def with_running_statistics(batch: Any, batch_idx: int) -> Tensor:
            norms = [norm for norm in module.training_module.modules() if isinstance(norm, _BatchNorm)]
            for norm in norms:
                norm.eval()
            try:
                return step(batch, batch_idx)
            finally:
                for norm in norms:
                    norm.train()

        module.architecture_step = with_running_statistics
        return module
