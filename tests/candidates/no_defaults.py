"""Every constructor takes all its arguments by position and has no defaults."""

from torch import cat, nn, randn


class Patches(nn.Module):
    def __init__(self, channels, patch_size, dim):
        super().__init__()
        self.conv = nn.Conv2d(channels, dim, patch_size, patch_size)
        self.flatten = nn.Flatten(2, 3)

    def forward(self, x):
        return self.flatten(self.conv(x)).permute(0, 2, 1)


class Tokens(nn.Module):
    def __init__(self, count, dim):
        super().__init__()
        self.token = nn.Parameter(randn(1, 1, dim))
        self.place = nn.Parameter(randn(1, count + 1, dim))

    def forward(self, x):
        return cat([self.token.repeat(len(x), 1, 1), x], 1) + self.place


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm = nn.LayerNorm(dim, 1e-6)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x):
        y = self.norm(x)
        return x + self.attention(y, y, y)[0]


class Perceptron(nn.Module):
    def __init__(self, dim, mlp_size):
        super().__init__()
        self.norm = nn.LayerNorm(dim, 1e-6)
        self.wide = nn.Linear(dim, mlp_size)
        self.bend = nn.GELU()
        self.narrow = nn.Linear(mlp_size, dim)

    def forward(self, x):
        return x + self.narrow(self.bend(self.wide(self.norm(x))))


class Encoder(nn.Module):
    def __init__(self, dim, depth, heads, mlp_size):
        super().__init__()
        steps = []
        for _ in range(depth):
            steps.append(Attention(dim, heads))
            steps.append(Perceptron(dim, mlp_size))
        self.steps = nn.Sequential(*steps)
        self.norm = nn.LayerNorm(dim, 1e-6)

    def forward(self, x):
        return self.norm(self.steps(x))


class PositionalViT(nn.Module):
    def __init__(self, image_size, patch_size, channels, dim, depth, heads, mlp_size, classes):
        super().__init__()
        self.patches = Patches(channels, patch_size, dim)
        self.tokens = Tokens((image_size // patch_size) ** 2, dim)
        self.encoder = Encoder(dim, depth, heads, mlp_size)
        self.classify = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.encoder(self.tokens(self.patches(x)))
        return self.classify(x[:, 0])
