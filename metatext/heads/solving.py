"""Systems of equations that closed-form heads solve: their matrices are symmetric and positive definite, one for each task."""

from __future__ import annotations

import torch
from torch import Tensor

# Cholesky's factor and not `torch.linalg.inv` or `solve`: half the operations, and the LU decomposition behind those two fails for a batch
# of matrices of 150 rows or more on a CPU once `torch.set_num_threads` has been called (pytorch issue 142815). LU serves where rounding
# has left a matrix a negative eigenvalue: thousands of rows that each stand for many examples, with next to no noise.


def inverse(matrix: Tensor) -> Tensor:
    """(b, n, n) symmetric positive definite -> (b, n, n)."""
    lower, failed = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.inv(matrix) if failed.any() else torch.cholesky_inverse(lower)


def solve(matrix: Tensor, values: Tensor) -> Tensor:
    """(b, n, n) symmetric positive definite, (b, n, m) -> (b, n, m), the x of ``matrix @ x = values``."""
    lower, failed = torch.linalg.cholesky_ex(matrix)
    return torch.linalg.solve(matrix, values) if failed.any() else torch.cholesky_solve(values, lower)
