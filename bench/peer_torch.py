"""PyTorch as a peer of bench, see peer.h: peer_torch.py eager|compiled THREADS

Requests, a line each, and what follows "ok " in the answers:
  begin BATCH TOKENS VOCAB D HEADS BLOCKS   the model's number of parameters; with compiled,
                                            it is compiled now
  step SECONDS                              seconds per training step, over about SECONDS
  memory                                    bytes at the peak of a step, beyond parameters,
                                            gradients and optimiser state
  chain N SECONDS                           seconds of N small operations and their backward
"""
import os
import sys
import time

# The answers go where stdout went; what else is printed, on whatever way, goes to stderr.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def answer(text):
    print(text, file=answers, flush=True)


try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except Exception as error:
    answer("no torch cannot be imported: " + str(error).split("\n")[0])
    sys.exit()


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): as ag_block."""

    def __init__(self, d, heads):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d, bias=False)  # one product is faster than three
        self.w_o = nn.Linear(d, d, bias=False)
        self.w_1, self.w_2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        batch, tokens, d = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, tokens, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.w_o(mixed.transpose(1, 2).reshape(batch, tokens, d))
        return x + self.w_2(F.gelu(self.w_1(self.norm_2(x))))


class Transformer(nn.Module):
    """As ag_transformer."""

    def __init__(self, tokens, vocab, d, heads, blocks):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, d), nn.Embedding(tokens, d)
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(d)
        self.unembedding = nn.Linear(d, vocab, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens, labels):
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.unembedding(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1))


class Training:
    def __init__(self, compiled, batch, tokens, vocab, d, heads, blocks):
        torch.manual_seed(1)
        model = Transformer(tokens, vocab, d, heads, blocks)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        self.loss = torch.compile(model) if compiled else model
        self.tokens = torch.randint(vocab, (batch, tokens))
        self.labels = torch.randint(vocab, (batch, tokens))

    def step(self, keep_gradients=False):
        self.loss(self.tokens, self.labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not keep_gradients)

    def memory(self):
        """Gradients are kept from the step before, so that they do not count as new."""
        from torch.profiler import ProfilerActivity, profile

        self.step(keep_gradients=True)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self.step(keep_gradients=True)
        events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
        now = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            now += event.nbytes()
            peak = max(peak, now)
        self.optimizer.zero_grad()
        return peak


def small_operations(n):
    """The chain of section_overhead.c."""
    x = torch.full((16,), 0.5, requires_grad=True)
    y = torch.full((16,), 0.5, requires_grad=True)

    def chain():
        h = x
        for i in range(n):
            h = h + y if i % 3 == 0 else h * y if i % 3 == 1 else h * 1.5
        h.backward(torch.ones(16))
        x.grad = y.grad = None

    return chain


def seconds_per_call(function, seconds):
    calls, start = 0, time.perf_counter()
    while True:
        function()
        calls += 1
        taken = time.perf_counter() - start
        if taken >= seconds:
            return taken / calls


def main(mode, threads):
    torch.set_num_threads(int(threads))
    training, chain, chain_n = None, None, 0
    answer("ok PyTorch " + torch.__version__)
    for line in sys.stdin:
        word, *numbers = line.split()
        if word == "begin":
            training = None
            torch.compiler.reset()
            training = Training(mode == "compiled", *map(int, numbers))
            for _ in range(3):
                training.step()
            answer(f"ok {training.parameters}")
        elif word == "step":
            answer(f"ok {seconds_per_call(training.step, float(numbers[0])):.9g}")
        elif word == "memory":
            answer(f"ok {training.memory()}")
        elif word == "chain":
            if chain_n != int(numbers[0]):
                chain_n = int(numbers[0])
                chain = small_operations(chain_n)
            answer(f"ok {seconds_per_call(chain, float(numbers[1])):.9g}")


try:
    main(*sys.argv[1:])
except Exception as error:
    answer(f"no {type(error).__name__}: " + str(error).split("\n")[0])
