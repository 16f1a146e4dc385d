"""One equivariant layer inside an ordinary PyG model.

Frames stand on the surface (TangentPoses), edges join neighbours, and the layer
sees each neighbour's position and frame from its own frame. The features of a
cloud and of its rotated copy are equal, alone or in a batch.

    python examples/layer_in_a_pyg_model.py
"""

import math

import torch
from torch_geometric.data import Batch, Data
from torch_geometric.nn import global_mean_pool

from pcequi.batched_poses import batched_poses
from pcequi.kernels import SE3Kernel
from pcequi.nn import GroupConv
from pcequi.ops import pairs_within
from pcequi.poses import TangentPoses
from pcequi.rotations import random_rotations

RADIUS = 0.5


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        kernel = SE3Kernel(num_points=15, num_rotations=4, rotation_width=math.pi / 2)
        self.first = GroupConv(1, 16, kernel)
        self.second = GroupConv(16, 32, kernel)
        self.head = torch.nn.Linear(32, 2)

    def forward(self, pos: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        frame = batched_poses(TangentPoses(num_rotations=1), pos, batch).rot[:, 0]  # [N, 3, 3]
        target, source = pairs_within(pos, pos, RADIUS, batch, batch)
        edge_index = torch.stack([source, target])
        offset = (frame[target].mT @ (pos[source] - pos[target])[:, :, None])[:, :, 0] / RADIUS
        relative_pose = offset, frame[target].mT @ frame[source]
        x = pos.new_ones(len(pos), 1)
        x = self.first(x, edge_index, relative_pose).relu()
        x = self.second(x, edge_index, relative_pose).relu()
        return self.head(global_mean_pool(x, batch))


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = Model().double()
    cloud = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    cloud /= cloud.norm(dim=1).max()
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    both = Batch.from_data_list([Data(pos=cloud), Data(pos=cloud @ turn.T + 3.0)])
    with torch.no_grad():
        before, after = model(both.pos, both.batch)
    change = (before - after).abs().max() / before.abs().max()
    print(f"largest relative change under a rotation and a translation: {float(change):.1e}")
    assert change < 1e-9


if __name__ == "__main__":
    main()
