"""A demo with nested modules, an agent, helpers and a main block."""
import time
import dspy
from typing import Optional


def search(query: str) -> list[str]:
    """Search."""
    return [f"about {query}"]


class Inner(dspy.Module):
    def __init__(self, best: Optional[dspy.Module] = None):
        super().__init__()
        self.steps = [dspy.Predict("a -> b") for _ in range(2)]
        self.best = best or dspy.BestOfN(dspy.Predict("q -> a"), N=2, reward_fn=lambda a, p: 1.0, threshold=1.0)
        self.agent = dspy.ReAct("q -> a", tools=[search], max_iters=2)

    def forward(self, a: str) -> dspy.Prediction:
        """Do it."""
        # keep me
        for i, step in enumerate(self.steps):
            a = step(a=a).b  # and me
        out = self.best(
            q=a,
        )
        total = sum(len(s(a=a).b) for s in self.steps)
        xs = [s(a=a) for s in self.steps]
        return self._finish(out.a, total + len(xs))

    def _finish(self, a, total):
        time.sleep(0.01)
        return self.agent(q=f"{a} {self.steps[0](a=a).b}")


class Outer(dspy.Module):
    def __init__(self):
        self.inner = Inner()
        self.cot = dspy.ChainOfThought("question -> answer")

    def forward(self, question):
        docs = search(question)
        x = self.inner(a=question)
        with dspy.context(temperature=0.5):
            return self.cot(question=x.a + str(docs))


class Gen(Outer):
    def forward(self, question):
        f = lambda q: self.cot(question=q)
        return f(question)


def ask(p: Outer, q):
    return p(question=q).answer


outer = Outer()
if __name__ == "__main__":
    gen = Gen()
    print(ask(outer, "hello"))
    r = outer(question="x")
    # comment
    print(r.answer, gen(question="2").answer)
    for q in ["a", "b"]:
        print(outer(question=q))
