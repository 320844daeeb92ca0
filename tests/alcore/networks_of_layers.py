"""Small networks, one for each layer kind, that the sketch has to get right."""

import torch
from torch import nn


class Tokens(nn.Module):
    """Images to patches with a class token and a position embedding, as a vision transformer does."""

    def __init__(self, width):
        super().__init__()
        self.patches = nn.Conv2d(2, width, 3, stride=3)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 5, width))

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1) + self.places


class Attention(nn.Module):
    def __init__(self, width, *, need_weights=False, causal=False):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.need_weights, self.causal = need_weights, causal

    def forward(self, tokens):
        mask = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1) if self.causal else None
        return self.attention(tokens, tokens, tokens, need_weights=self.need_weights, attn_mask=mask)[0]


class CrossAttention(nn.Module):
    """Queries, keys and values of three widths, and of one width but different inputs."""

    def __init__(self):
        super().__init__()
        self.narrow = nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True)
        self.packed = nn.MultiheadAttention(4, 2, batch_first=True, bias=False)

    def forward(self, tokens):
        mixed, _ = self.narrow(tokens, tokens[..., :3], tokens.repeat(1, 1, 2)[..., :5])
        return self.packed(mixed, tokens, tokens.flip(1))[0]


class Tied(nn.Module):
    """One matrix as an embedding's table and as a linear layer's weight, and a layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, 4, padding_idx=2)
        self.again = nn.Linear(4, 4)
        self.out = nn.Linear(4, 6, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens):
        hidden = self.again(torch.tanh(self.again(self.table(tokens))))
        return self.out(hidden).mean(1)


class LayerScale(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(2, 1, 1))
        self.shift = nn.Parameter(torch.randn(()))
        self.temperature = nn.Parameter(torch.randn(1))

    def forward(self, images):
        return (self.shift - self.scale * images) * self.temperature.exp()


class DerivedBias(nn.Module):
    """A bias part of which is set to zero, as Swin's second version has."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, images):
        bias = self.bias.clone()
        bias[1:3].zero_()
        return nn.functional.linear(images, self.weight, bias)


class Mean(nn.Module):
    def forward(self, tokens):
        return tokens.flatten(1, -2).mean(1)


def _then(*layers, width):
    return nn.Sequential(*layers, nn.Linear(width, 3))


def _flat(*layers, width):
    return _then(*layers, nn.Flatten(), width=width)


def _images(*shape):
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def _words(*shape):
    return torch.randint(0, 6, (3, *shape), generator=torch.Generator().manual_seed(5))


def _swin():
    from alcore.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    from torchvision.models.swin_transformer import SwinTransformerBlock

    block = SwinTransformerBlock(4, num_heads=2, window_size=[2, 2], shift_size=[1, 1])
    return _then(block, Mean(), width=4), _images(4, 4, 4)


def _residual():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, images):
            result = self.inner(images)
            result += images
            return result

    return nn.Sequential(Residual(), nn.ReLU(inplace=True), Residual(), nn.Flatten(), nn.Linear(32, 3))


NETWORKS = {
    "linear": lambda: (_then(nn.Linear(4, 5), nn.Tanh(), width=5), _images(4)),
    "linear over tokens": lambda: (_then(nn.Linear(4, 5), nn.Tanh(), Mean(), width=5), _images(2, 3, 4)),
    "linear without bias": lambda: (_then(nn.Linear(4, 5, bias=False), nn.Tanh(), width=5), _images(4)),
    "conv1d": lambda: (_flat(nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), nn.Tanh(), width=12), _images(2, 6)),
    "conv1d same": lambda: (_flat(nn.Conv1d(2, 3, 4, padding="same", dilation=2), nn.Tanh(), width=18), _images(2, 6)),
    "conv2d": lambda: (_flat(nn.Conv2d(2, 3, 3), nn.Tanh(), width=12), _images(2, 4, 4)),
    "conv2d of one pixel": lambda: (_flat(nn.Conv2d(5, 6, 1, bias=False), nn.Tanh(), width=24), _images(5, 2, 2)),
    "conv2d in groups": lambda: (
        _flat(nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=2), nn.Tanh(), width=90),
        _images(4, 5, 4),
    ),
    "depthwise": lambda: (_flat(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Tanh(), width=64), _images(4, 4, 4)),
    "conv2d same": lambda: (_flat(nn.Conv2d(2, 3, (2, 3), padding="same"), nn.Tanh(), width=48), _images(2, 4, 4)),
    "circular": lambda: (
        _flat(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh(), width=48),
        _images(2, 4, 4),
    ),
    "batch norm": lambda: (_flat(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), width=12), _images(2, 4, 4)),
    "batch norm of vectors": lambda: (_then(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), width=5), _images(4)),
    "layer norm": lambda: (_flat(nn.LayerNorm([3, 4]), nn.Tanh(), width=24), _images(2, 3, 4)),
    "layer norm without bias": lambda: (_then(nn.LayerNorm(4, bias=False), nn.Tanh(), Mean(), width=4), _images(3, 4)),
    "group norm": lambda: (_flat(nn.GroupNorm(2, 4), nn.Tanh(), width=36), _images(4, 3, 3)),
    "embedding": lambda: (_then(nn.Embedding(6, 4, padding_idx=1), nn.Tanh(), Mean(), width=4), _words(5)),
    "attention": lambda: (_then(Tokens(4), Attention(4), Mean(), width=4), _images(2, 6, 6)),
    "attention with weights": lambda: (
        _then(Tokens(4), Attention(4, need_weights=True, causal=True), Mean(), width=4),
        _images(2, 6, 6),
    ),
    "causal attention": lambda: (_then(Tokens(4), Attention(4, causal=True), Mean(), width=4), _images(2, 6, 6)),
    "cross attention": lambda: (_then(Tokens(4), CrossAttention(), Mean(), width=4), _images(2, 6, 6)),
    "tied weights": lambda: (Tied(), _words(5)),
    "layer scale": lambda: (_flat(LayerScale(), nn.Tanh(), width=18), _images(2, 3, 3)),
    "derived bias": lambda: (_then(DerivedBias(), nn.Tanh(), Mean(), width=4), _images(3, 6)),
    "shifted windows": _swin,
    "in place": lambda: (_residual(), _images(2, 4, 4)),
    "no last linear layer": lambda: (nn.Sequential(nn.Linear(4, 3), nn.Tanh()), _images(4)),
}


def build(name):
    """(network in eval mode, float64, statistics and parameters drawn at random; three images)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module, images = NETWORKS[name]()
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.7)
        for key, buffer in module.named_buffers():
            if "running" in key:
                nn.init.uniform_(buffer, 0.5, 1.5)
    return module.double().eval(), images
