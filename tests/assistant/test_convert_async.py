"""``convert async``: what is awaited, what is left, and that nothing else of the file changes."""

# ruff: noqa: E501  (programs as one-line strings read better in one line)

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from dspy_live.assistant.convert import KINDS, Conversion, convert

NESTED = Path(__file__).with_name("programs") / "nested.txt"

MODULE = """
import dspy

class QA(dspy.Module):
    def __init__(self):
        super().__init__()
        {init}

    def forward(self, question):
        {body}
"""


def source(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def to_async(text: str) -> Conversion:
    conversion = convert("async", text)
    assert convert("async", conversion.new).new == conversion.new, "a second conversion must change nothing"
    return conversion


def module(init: str, body: str) -> Conversion:
    indent = "\n        "
    return to_async(MODULE.format(init=indent.join(init.splitlines()), body=indent.join(body.splitlines())))


def left(conversion: Conversion) -> str:
    return "\n".join(note.text for note in conversion.notes if note.level == "left")


@pytest.mark.parametrize(
    ("init", "body", "expected"),
    [
        ('self.p = dspy.Predict("question -> answer")', "return self.p(question=question)", "return await self.p.acall(question=question)"),
        ('self.p = dspy.ChainOfThought("q -> a")', "return self.p(q=question).a", "return (await self.p.acall(q=question)).a"),
        ('self.ps = [dspy.Predict("q -> a") for _ in range(3)]', "return [p(q=question) for p in self.ps]", "return [await p.acall(q=question) for p in self.ps]"),
        ('self.ps = {"a": dspy.Predict("q -> a")}', 'return self.ps["a"](q=question)', 'return await self.ps["a"].acall(q=question)'),
        ('self.ps = {"a": dspy.Predict("q -> a")}', "for n, p in self.ps.items():\n    p(q=n)", "await p.acall(q=n)"),
        ('self.ps = [dspy.Predict("q -> a")]', "for i, p in enumerate(self.ps):\n    p(q=i)", "await p.acall(q=i)"),
        ('self.ps = [dspy.Predict("q -> a")]', "return sum(len(p(q=1).a) for p in self.ps)", "sum([len((await p.acall(q=1)).a) for p in self.ps])"),
        ('self.p = dspy.Predict("q -> a")', 'return f"{self.p(q=question).a}!"', 'f"{(await self.p.acall(q=question)).a}!"'),
        ('self.p = dspy.Predict("q -> a")', "if (r := self.p(q=question)).a:\n    return r", "(r := await self.p.acall(q=question)).a"),
        ('self.p = dspy.Predict("q -> a")', "return self.p.forward(q=question)", "return await self.p.aforward(q=question)"),
        ("pass", 'return dspy.Predict("q -> a")(q=question)', 'return await dspy.Predict("q -> a").acall(q=question)'),
        ("pass", 'lm = dspy.LM("openai/x")\nreturn lm("hello")', 'await lm.acall("hello")'),
        ("pass", 'return dspy.settings.lm("hello")', 'await dspy.settings.lm.acall("hello")'),
        ('self.b = dspy.BestOfN(dspy.Predict("q -> a"), N=2, reward_fn=f, threshold=1)', "return self.b(q=question)", "return await dspy_live.asyncify(self.b)(q=question)"),
        ("self.c = dspy.CodeAct('q -> a', tools=[])", "return self.c(q=question)", 'await dspy_live.asyncify(self.c, execution="thread")(q=question)'),
        ("self.par = dspy.Parallel(num_threads=2)", "return self.par([])", "return await asyncio.to_thread(self.par, [])"),
        ("self.find = dspy.Retrieve(k=3)", "return self.find(question).passages", "return (await asyncio.to_thread(self.find, question)).passages"),
        ('self.p = dspy.Predict("q -> a")', "return self.p.batch([])", "return await asyncio.to_thread(self.p.batch, [])"),
        ('self.p = dspy.Predict("q -> a")', "with dspy.context(lm=None):\n    return self.p(q=1)", "    return await self.p.acall(q=1)"),
        ('self.p = dspy.Predict("q -> a")', "def inner(x):\n    return self.p(q=x)\nreturn inner(question)", "return await inner(question)"),
        ("self.p: dspy.Predict = dspy.Predict('q -> a')", "p = self.p\nreturn p(q=question)", "return await p.acall(q=question)"),
        ('self.p = dspy.Predict("q -> a")', "p = self.p if question else None\nreturn p(q=1)", "return await p.acall(q=1)"),
        ('self.p, self.n = dspy.Predict("q -> a"), 3', "return self.p(q=question)", "return await self.p.acall(q=question)"),
        ('self.p = dspy.Predict("q -> a")', "return any(x for x in self.p(q=question).a)", "any(x for x in (await self.p.acall(q=question)).a)"),
    ],
)  # fmt: skip
def test_a_call_is_awaited(init: str, body: str, expected: str) -> None:
    conversion = module(init, body)
    assert expected in conversion.new
    assert "async def aforward(self, question):" in conversion.new


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return max([1, 2], key=lambda x: len(self.p(q=x).a))", "a lambda calls a module"),
        ("return any(self.p(q=x).a for x in question)", "its reader can't await"),
        ("for a in (self.p(q=x).a for x in question):\n    print(a)", "its reader can't await"),
        ("made = (self.p(q=x).a for x in question)\nreturn next(made)", "its reader can't await"),
        ("return list(map(self.p, question))", "map() calls a module that it is handed"),
        (
            "with Pool() as pool:\n    return [f.result() for f in [pool.submit(self.p, q=1)]]",
            "pool.submit() calls a module",
        ),
        ("yield self.p(q=question)", "generator"),
        ("def score(x):\n    return self.p(q=x)\nreturn sorted(question, key=score)", "handed on as a value"),
        ("with self.lock:\n    return self.p(q=question)", "lock"),
    ],
)
def test_what_cannot_be_awaited_safely_is_left_and_explained(body: str, reason: str) -> None:
    conversion = module('self.p = dspy.Predict("q -> a")\nself.lock = threading.Lock()', body)
    assert "aforward" not in conversion.new
    assert reason in left(conversion)
    assert "through a thread" in left(conversion)


def test_a_decorated_forward_stays_and_its_caller_goes_through_a_thread() -> None:
    conversion = to_async(
        source("""
        import functools, dspy

        class Inner(dspy.Module):
            def __init__(self):
                self.p = dspy.Predict("q -> a")

            @functools.lru_cache
            def forward(self, q):
                return self.p(q=q)

        class Outer(dspy.Module):
            def __init__(self):
                self.inner = Inner()

            def forward(self, q):
                return self.inner(q=q)
        """)
    )
    assert "lru_cache" in left(conversion)
    assert "return await dspy_live.asyncify(self.inner)(q=q)" in conversion.new


def test_a_generator_that_calls_a_module_is_not_awaited() -> None:
    """``await asyncio.to_thread(parts)`` would only make the generator there; its calls would block the loop."""
    conversion = to_async(
        source("""
        import dspy

        class QA(dspy.Module):
            def __init__(self):
                self.p = dspy.Predict("q -> a")

            def parts(self, q):
                for word in q.split():
                    yield self.p(q=word).a

            def forward(self, q):
                return list(self.parts(q))
        """)
    )
    assert "to_thread" not in conversion.new
    assert "the generator parts() calls a module, and its reader can't await (line 12)" in left(conversion)


def test_a_call_of_ones_own_is_not_passed_by() -> None:
    """DSPy's ``acall`` runs ``aforward`` and knows nothing of a ``__call__`` that the class defines."""
    conversion = to_async(
        source("""
        import dspy

        class Loud(dspy.Module):
            def __init__(self):
                self.p = dspy.Predict("q -> a")

            def __call__(self, q):
                return super().__call__(q=q).a.upper()

            def forward(self, q):
                return self.p(q=q)

        class Both(Loud):
            async def aforward(self, q):
                return await self.p.acall(q=q)

        print(Loud()("x"), Both()("x"))
        """)
    )
    assert "a __call__() of its own" in left(conversion)
    assert conversion.new.count("async def aforward") == 1
    assert 'await dspy_live.asyncify(Loud())("x"), await dspy_live.asyncify(Both(), execution="thread")("x")' in (
        conversion.new
    )


def test_functions_under_other_names() -> None:
    """A twin is called by the function's name, which an alias does not have."""
    conversion = to_async(
        source("""
        import dspy

        def ask(q):
            return dspy.Predict("q -> a")(q=q)

        class QA(dspy.Module):
            def __init__(self):
                self.p = dspy.Predict("q -> a")
                self.helper = ask

            def one(self, q):
                return self.p(q=q)

            def forward(self, q):
                one, forward = self.one, self.p.forward
                return one(q), self.helper(q), QA.one(self, q)

        other = ask
        print(other(1))
        """)
    )
    assert "return await asyncio.to_thread(one, q), await ask_async(q), await QA.one_async(self, q)" in conversion.new
    assert "print(await ask_async(1))" in conversion.new


def test_class_methods_and_properties() -> None:
    conversion = to_async(
        source("""
        import dspy

        class QA(dspy.Module):
            def __init__(self):
                self._p = dspy.Predict("q -> a")

            @property
            def p(self):
                return self._p

            @classmethod
            def ask(cls, q):
                return cls()(q=q)

            def pick(self, q):
                return self._p

            def forward(self, q):
                return self.p(q=q).a + self.pick(q)(q=q).a

        class Lazy(QA):
            @property
            def quick(self):
                return self.p(q="quick").a

            def forward(self, q):
                return self.quick

        print(QA.ask("x"))
        print(Lazy().quick)
        """)
    )
    assert "return (await self.p.acall(q=q)).a + (await self.pick(q).acall(q=q)).a" in conversion.new
    assert "return await cls().acall(q=q)" in conversion.new
    assert 'print(await QA.ask_async("x"))' in conversion.new
    assert "the property quick calls a module, and reading it can't be awaited (line 27)" in left(conversion)
    assert "the property quick calls a module, and reading it can't be awaited (line 30)" in left(conversion)


def test_an_inherited_aforward_is_not_run_in_place_of_an_own_forward() -> None:
    """``acall`` of the subclass would run its parent's ``aforward``: another program."""
    conversion = to_async(
        source("""
        import dspy

        class Parent(dspy.Module):
            def __init__(self):
                self.p = dspy.Predict("q -> a")

            def forward(self, q):
                return self.p(q=q)

        class Child(Parent):
            def forward(self, q):
                return max([q], key=lambda x: self.p(q=x).a)

        child = Child()
        print(child(q=1))
        """)
    )
    assert 'await dspy_live.asyncify(child, execution="thread")(q=1)' in conversion.new


def test_super_and_builtin_bases() -> None:
    conversion = to_async(
        source("""
        import dspy

        class Loud(dspy.ChainOfThought):
            def forward(self, **inputs):
                return super().forward(**inputs)

        class Base(dspy.Module):
            def forward(self, q):
                return q

        class Next(Base):
            def forward(self, q):
                return super().forward(q)

        class Best(dspy.BestOfN):
            def forward(self, **inputs):
                return super().forward(**inputs)
        """)
    )
    assert conversion.new.count("return await super().aforward(") == 2
    assert "Best.forward() stays synchronous" in left(conversion)


def test_helpers_get_twins_and_recursion_ends() -> None:
    conversion = to_async(
        source("""
        import dspy

        def shared(p, q):
            return p(q=q)

        class Deep(dspy.Module):
            def __init__(self):
                self.p = dspy.Predict("q -> a")

            def _walk(self, q, depth):
                if depth == 0:
                    return shared(self.p, q)
                return self._walk(self.p(q=q).a, depth - 1)

            def _pure(self, q):
                return q.strip()

            def forward(self, q):
                return self._walk(self._pure(q), 2)
        """)
    )
    assert "return await self._walk_async(self._pure(q), 2)" in conversion.new
    assert "return await self._walk_async((await self.p.acall(q=q)).a, depth - 1)" in conversion.new
    assert "_pure_async" not in conversion.new
    assert "return await shared_async(self.p, q)" in conversion.new, "all calls hand it a predictor"
    assert "async def shared_async(p, q):\n    return await p.acall(q=q)" in conversion.new


@pytest.mark.parametrize(
    "other", ["shared(str.upper, 'x')", "shared(unknown(), 'x')", "shared(*rest)", "list(map(shared, []))"]
)
def test_a_parameter_that_may_be_something_else_is_not_guessed(other: str) -> None:
    conversion = to_async(
        source(f"""
        import dspy

        p = dspy.Predict("q -> a")

        def shared(p, q):
            return p(q)

        def ask(q):
            return shared(p, q)

        def more(rest, unknown):
            return {other}
        """)
    )
    assert "shared_async" not in conversion.new


def test_an_annotated_parameter_is_known() -> None:
    conversion = to_async(
        source("""
        from __future__ import annotations
        import dspy
        from typing import Optional

        class Rag(dspy.Module):
            def __init__(self, answer: Optional[dspy.Predict], rest: "dspy.Module"):
                self.answer, self.rest = answer, rest

            def forward(self, q: str, extra: dspy.ChainOfThought | None = None) -> dspy.Prediction:
                return extra(q=q)
        """)
    )
    assert (
        "async def aforward(self, q: str, extra: dspy.ChainOfThought | None = None) -> dspy.Prediction:"
        in conversion.new
    )
    assert "return await extra.acall(q=q)" in conversion.new


@pytest.mark.parametrize(
    ("imports", "base", "made"),
    [
        ("import dspy as d", "d.Module", "d.Predict"),
        ("from dspy import Module, Predict", "Module", "Predict"),
        ("from dspy import Module as M\nfrom dspy.predict import Predict as P", "M", "P"),
        ("from dspy import *", "Module", "Predict"),
    ],
)
def test_every_way_to_import_dspy(imports: str, base: str, made: str) -> None:
    text = f"{imports}\n\nclass A({base}):\n    def __init__(self):\n        self.p = {made}('q -> a')\n\n    def forward(self, q):\n        return self.p(q=q)\n"
    assert "return await self.p.acall(q=q)" in to_async(text).new


def test_blocking_library_calls_leave_the_loop() -> None:
    conversion = module(
        'self.p = dspy.Predict("q -> a")',
        "import time, requests\ntime.sleep(1)\npage = requests.get(question).text\nreturn self.p(q=page)",
    )
    assert "await asyncio.sleep(1)" in conversion.new
    assert "page = (await asyncio.to_thread(requests.get, question)).text" in conversion.new


def test_optimisers_and_evaluation_go_to_a_thread() -> None:
    conversion = to_async(
        source("""
        import dspy

        qa = dspy.Predict("q -> a")
        best = dspy.BootstrapFewShot(metric=None).compile(qa, trainset=[])
        print(best(q=1).a)
        score = dspy.Evaluate(devset=[], metric=None)(qa)
        """)
    )
    assert (
        "best = await asyncio.to_thread(dspy.BootstrapFewShot(metric=None).compile, qa, trainset=[])" in conversion.new
    )
    assert "print((await best.acall(q=1)).a)" in conversion.new
    assert "score = await asyncio.to_thread(dspy.Evaluate(devset=[], metric=None), qa)" in conversion.new


def test_code_that_is_asynchronous_already_stops_blocking() -> None:
    conversion = to_async(
        source("""
        import asyncio
        import dspy
        from fastapi import FastAPI

        app = FastAPI()
        qa = dspy.Predict("question -> answer")

        async def one(q):
            return qa(question=q).answer

        async def right(q):
            return (await qa.acall(question=q)).answer

        @app.get("/")
        def route(q: str):
            return qa(question=q).answer

        async def main():
            print(await asyncio.gather(one("a"), right("b")))

        asyncio.run(main())
        """)
    )
    assert conversion.new.count("return (await qa.acall(question=q)).answer") == 3
    assert "async def route(q: str):" in conversion.new
    assert conversion.new.count("asyncio.run(") == 1


def test_a_program_with_an_aforward_is_not_touched() -> None:
    text = source("""
    import dspy

    class A(dspy.Module):
        def forward(self, q):
            return q

        async def aforward(self, q):
            return q
    """)
    conversion = to_async(text)
    assert conversion.new == text
    assert not conversion.changed
    assert "already" in left(conversion)


class TestWhatRuns:
    """The ``if __name__`` block, or a script's own statements."""

    def test_main_as_the_only_call_becomes_a_coroutine(self) -> None:
        new = to_async(
            source("""
            import dspy

            qa = dspy.Predict("q -> a")

            def main():
                print(qa(q=1).a)

            if __name__ == "__main__":
                main()
            """)
        ).new
        assert "async def main():" in new
        assert "    asyncio.run(main())" in new
        assert new.count("def main") == 1

    @pytest.mark.parametrize(
        ("start", "started"),
        [
            ("sys.exit(main())", "sys.exit(asyncio.run(main()))"),
            ("raise SystemExit(main())", "raise SystemExit(asyncio.run(main()))"),
            ("code = main()\n    print(code)", "code = asyncio.run(main())\n    print(code)"),
            (
                "try:\n        main()\n    except KeyboardInterrupt:\n        pass",
                "try:\n        asyncio.run(main())\n    except KeyboardInterrupt:\n        pass",
            ),
        ],
    )
    def test_the_loop_starts_where_main_was_called(self, start: str, started: str) -> None:
        """Inside of a coroutine ``except KeyboardInterrupt`` catches nothing: Ctrl-C ends the loop from outside."""
        text = "import sys\nimport dspy\n\nqa = dspy.Predict('q -> a')\n\ndef main():\n    print(qa(q=1))\n\n"
        new = to_async(f'{text}if __name__ == "__main__":\n    {start}\n').new
        assert "async def main():" in new
        assert new.endswith(f'if __name__ == "__main__":\n    {started}\n')

    def test_a_main_that_cannot_be_awaited_is_left_with_a_reason(self) -> None:
        text = source("""
        import dspy

        qa = dspy.Predict("q -> a")

        def main():
            print(max("ab", key=lambda q: qa(q=q).a), qa(q=1))

        if __name__ == "__main__":
            main()
        """)
        conversion = to_async(text)
        assert conversion.new == text
        assert "main() stays synchronous: a lambda calls a module, and a lambda can't await (line 6)" in left(
            conversion
        )

    def test_what_blocks_is_named_with_its_line_and_nothing_is_broken(self) -> None:
        conversion = to_async(
            source("""
            import dspy

            qa = dspy.Predict("q -> a")

            def each(items):
                for item in items:
                    yield qa(q=item)

            print(qa(q=0))
            answers = (qa(q=q).a for q in "ab")
            print(next(answers), any(qa(q=q).a for q in "ab"), list(each("ab")))
            """)
        )
        assert 'answers = (qa(q=q).a for q in "ab")' in conversion.new
        assert 'print(next(answers), any(qa(q=q).a for q in "ab"), list(each("ab")))' in conversion.new
        assert "(line 10)" in left(conversion)
        assert "the generator each() calls a module, and its reader can't await (line 11)" in left(conversion)

    @pytest.mark.parametrize("load", ["requests.get('http://x').json()", "load()"])
    def test_what_others_import_is_not_moved_for_a_librarys_sake(self, load: str) -> None:
        """``DATA`` in main() would be no name of the module any more."""
        text = source("""
        import dspy
        import requests

        def load():
            return requests.get("http://x").json()

        DATA = LOAD
        qa = dspy.Predict("q -> a")
        """).replace("LOAD", load)
        conversion = to_async(text)
        assert f"\nDATA = {load}\n" in conversion.new
        assert "main" not in conversion.new

    def test_bodies_on_one_line(self) -> None:
        text = source("""
        import dspy

        def build(): return dspy.Predict("q -> a")

        class QA(dspy.Module):
            def __init__(self): super().__init__(); self.p = build()
            def forward(self, q): return self.p(q=q)

        def main(): print(QA()(q=1))

        if __name__ == "__main__": main()  # go
        """)
        new = to_async(text).new
        assert "async def aforward(self, q): return await self.p.acall(q=q)" in new
        assert "async def main(): print(await QA().acall(q=1))" in new
        assert new.endswith('if __name__ == "__main__":\n    asyncio.run(main())  # go\n')
        plain = 'import dspy\n\nclass A(dspy.Module): pass\n\nif __name__ == "__main__": print(1)\n'
        assert to_async(plain).new == plain

    def test_a_main_that_others_use_keeps_its_name(self) -> None:
        new = to_async(
            source("""
            import dspy

            qa = dspy.Predict("q -> a")

            def main():
                print(qa(q=1).a)

            def twice():
                main(); main()

            if __name__ == "__main__":
                main()
            """)
        ).new
        assert "\ndef main():" in new
        assert "asyncio.run(main_async())" in new

    def test_names_that_other_code_reads_stay_global(self) -> None:
        new = to_async(
            source("""
            import dspy

            qa = dspy.Predict("q -> a")
            total = 0

            def show():
                print(answer, q)

            def other(q):
                return [x for x in q]

            answer = qa(q=1).a
            total += 1
            x = 3
            show()
            """)
        ).new
        assert "    global answer, total\n" in new

    def test_definitions_and_programs_stay_importable(self) -> None:
        new = to_async(
            source("""
            import dspy

            first = dspy.Predict("q -> a")
            print(first(q=1))

            # A second part.
            class B(dspy.Module):
                def forward(self, q):
                    return first(q=q)

            second = B()
            print(second(q=2))
            """)
        ).new
        body = new[: new.index("async def main")]
        assert "class B(dspy.Module)" in body
        assert "second = B()" in body
        assert "# A second part." in body
        assert "    print(await first.acall(q=1))\n    print(await second.acall(q=2))" in new

    def test_a_definition_that_needs_an_early_result_is_left(self) -> None:
        text = source("""
        import dspy

        qa = dspy.Predict("q -> a")
        answer = qa(q=1).a

        def show(text=answer):
            print(text)
        """)
        conversion = to_async(text)
        assert conversion.new == text
        assert "show needs answer while it is being defined" in left(conversion)

    def test_a_script_with_a_main_block_keeps_the_order(self) -> None:
        new = to_async(
            source("""
            import dspy

            qa = dspy.Predict("q -> a")
            print(qa(q=1))

            # The end.
            if __name__ == "__main__":
                other = dspy.Predict("q -> b")
                print(other(q=2))
            """)
        ).new
        main = new[new.index("async def main") :]
        assert main.index("qa.acall") < main.index('dspy.Predict("q -> b")') < main.index("other.acall")
        assert main.count("if __name__") == 1
        assert "# The end." in main

    def test_a_plain_class_that_holds_a_program(self) -> None:
        new = to_async(
            source("""
            import dspy

            class Service:
                def __init__(self):
                    self.qa = dspy.Predict("q -> a")

                def ask(self, q):
                    return self.qa(q=q).a

            if __name__ == "__main__":
                service = Service()
                print(service.ask("hello"))
            """)
        ).new
        assert "    async def ask_async(self, q):\n        return (await self.qa.acall(q=q)).a" in new
        assert "asyncio.run(main())" in new


def test_a_library_gets_twins_of_what_others_call() -> None:
    conversion = to_async(
        source("""
        import dspy, typer

        app = typer.Typer()
        qa = dspy.Predict("q -> a")

        def ask(q):
            return qa(q=q).a

        def pure(q):
            return q

        class Service:
            def ask(self, q):
                return qa(q=q).a

        @app.command()
        def command(q: str):
            print(qa(q=q).a)

        if __name__ == "__main__":
            app()
        """)
    )
    assert "async def ask_async(q):\n    return (await qa.acall(q=q)).a" in conversion.new
    assert "    async def ask_async(self, q):" in conversion.new
    assert conversion.new.count("async def") == 2
    assert "command() stays synchronous: it is decorated with @app.command(), made for functions" in left(conversion)


def test_synchronous_tools_stay_and_are_named() -> None:
    conversion = convert("async", NESTED.read_text())
    advice = [note for note in conversion.notes if note.level == "advice"]
    assert [note.line for note in advice] == [7]
    assert "search() is a synchronous tool" in advice[0].text


@pytest.mark.parametrize("kind", KINDS)
def test_everything_outside_of_what_changes_is_kept(kind: str) -> None:
    """Comments and formatting: a line that is gone was part of what runs the program."""
    text = NESTED.read_text()
    conversion = convert(kind, text, program="outer", file="nested.py")
    gone = [line[1:] for line in conversion.diff.splitlines() if line.startswith("-") and not line.startswith("---")]
    running = text[text.index('if __name__ == "__main__"') :]
    assert all(line in running for line in gone)
    compile(conversion.new, "nested.py", "exec")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("fastapi", "tests")])
def test_twice_is_once(kind: str) -> None:
    text = NESTED.read_text()
    once = convert(kind, text, program="outer").new
    assert convert(kind, once, program="outer").new == once


def test_line_ends_tabs_and_a_missing_last_newline_survive() -> None:
    text = "import dspy\r\n\r\nclass A(dspy.Module):\r\n\tdef __init__(self):\r\n\t\tself.p = dspy.Predict('q -> a')  # é\r\n\r\n\tdef forward(self, q):\r\n\t\treturn self.p(q=q)"
    new = to_async(text).new
    assert "\n" not in new.replace("\r\n", "")
    assert "\tasync def aforward(self, q):\r\n\t\treturn await self.p.acall(q=q)" in new
    assert "# é" in new
    compile(new, "a.py", "exec")


def test_the_diff_says_what_a_patch_needs() -> None:
    conversion = convert("async", NESTED.read_text(), file="somewhere/nested.py")
    assert conversion.diff.startswith("--- a/nested.py\n+++ b/nested.py\n@@ ")
    assert conversion.changed


def test_tools_that_are_methods_or_wrapped_are_named_too() -> None:
    conversion = to_async(
        source("""
        import dspy

        def look(q): return q
        def find(q): return q
        async def fetch(q): return q

        class Agent(dspy.Module):
            def __init__(self):
                self.agent = dspy.ReAct("q -> a", tools=[dspy.Tool(look), self.own, fetch])

            def own(self, q):
                return q

            def forward(self, q):
                return self.agent(q=q)

        agent = dspy.ReAct("q -> a", tools=[find])
        """)
    )
    advice = [note.text.partition("()")[0] for note in conversion.notes if "synchronous tool" in note.text]
    assert sorted(advice) == ["find", "look", "self.own"]
