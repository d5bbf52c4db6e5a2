"""Arguments of one letter, most of them the paper's, and those whose names say nothing to who knows English only."""

from common import Whole


class Paper(Whole):
    """As in "An Image is Worth 16x16 Words": `k` heads and `K` classes."""

    def __init__(self, H=224, W=224, C=3, P=16, D=768, L=12, k=12, D_mlp=3072, K=1000):
        super().__init__((H, W), P, C, D, L, k, D_mlp, K)


class Lower(Whole):
    def __init__(self, p=16, d=768, h=12, l=12, m=3072, n_cls=1000, img=224):
        super().__init__(img, p, 3, d, l, h, m, n_cls)


class WithTheNumberOfPatches(Whole):
    """`N` patches of `P` x `P` pixels."""

    def __init__(self, N, P, C, D, L, h, mlp, K):
        side = round(N**0.5)
        assert side * side == N
        super().__init__(side * P, P, C, D, L, h, mlp, K)


class Foreign(Whole):
    def __init__(self, bildgroesse, kachelgroesse, breite, tiefe, koepfe, innenbreite, klassen):
        super().__init__(bildgroesse, kachelgroesse, 3, breite, tiefe, koepfe, innenbreite, klassen)
