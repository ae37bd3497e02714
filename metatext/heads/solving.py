"""Systems of equations that closed-form heads solve: their matrices are symmetric and positive definite, one for each task."""

from __future__ import annotations

import torch
from torch import Tensor

# Cholesky's factor and not `torch.linalg.inv` or `solve`: half the operations, and the LU decomposition behind those two fails for a batch
# of matrices of 150 rows or more on a CPU once `torch.set_num_threads` has been called (pytorch issue 142815). The factor is not
# checked, since that would wait for the GPU: of features that are not finite nothing finite comes, which the loss tells.


def inverse(matrix: Tensor) -> Tensor:
    """(b, n, n) symmetric positive definite -> (b, n, n)."""
    return torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)


def solve(matrix: Tensor, values: Tensor) -> Tensor:
    """(b, n, n) symmetric positive definite, (b, n, m) -> (b, n, m), the x of ``matrix @ x = values``."""
    return torch.cholesky_solve(values, torch.linalg.cholesky_ex(matrix).L)
