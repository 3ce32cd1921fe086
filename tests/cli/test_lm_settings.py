"""Which source of the LM's settings wins, and what is said of a source that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dspy_live.core.errors import ConfigurationError
from dspy_live.loading.config.read import read_config
from dspy_live.loading.lm_settings import LMSettings, load_dotenv, read_settings


def test_flags_go_before_file_environment_and_dotenv(tmp_path: Path) -> None:
    file = tmp_path / "live.toml"
    file.write_text('[lm]\nmodel = "openai/file"\ntemperature = 0.2\n')
    dotenv = tmp_path / ".env"
    dotenv.write_text("DSPY_LIVE_LM=openai/dotenv\nDSPY_LIVE_API_KEY=dotenv-key\n")

    def read(environ: dict[str, str], **flags: object) -> LMSettings:
        return read_settings(environ=environ, dotenv=dotenv, **flags)  # type: ignore[arg-type]

    everything = read({"DSPY_LIVE_LM": "openai/env"}, lm="openai/flag", file=read_config(file))
    assert (everything.model, everything.source, everything.explicit) == ("openai/flag", "--lm", True)
    assert everything.options == {"temperature": 0.2, "api_key": "dotenv-key"}
    from_file = read({"DSPY_LIVE_LM": "openai/env"}, file=read_config(file))
    assert (from_file.model, from_file.source, from_file.explicit) == ("openai/file", str(file), True)
    from_env = read({"DSPY_LIVE_LM": "openai/env"})
    assert (from_env.model, from_env.source, from_env.explicit) == ("openai/env", "DSPY_LIVE_LM", False)
    from_dotenv = read({})
    assert (from_dotenv.model, from_dotenv.source, from_dotenv.explicit) == ("openai/dotenv", ".env", False)


def test_nothing_configured_is_no_model(tmp_path: Path) -> None:
    settings = read_settings(environ={}, dotenv=tmp_path / ".env")
    assert settings.model is None
    assert not settings.options


def test_a_bare_name_at_an_address_of_ones_own_speaks_openai(tmp_path: Path) -> None:
    settings = read_settings(lm="qwen", api_base="http://127.0.0.1:1/v1", environ={}, dotenv=tmp_path / ".env")
    assert settings.model == "openai/qwen"
    assert settings.options == {"api_base": "http://127.0.0.1:1/v1"}


def test_a_key_named_by_the_file_comes_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "live.toml"
    file.write_text('[lm]\nmodel = "openai/x"\napi_key_env = "MY_KEY"\n')
    config = read_config(file, {"MY_KEY": "secret"})
    settings = read_settings(file=config, environ={}, dotenv=tmp_path / ".env")
    assert settings.options == {"api_key": "secret"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "can't read"),
        ("lm = [", "lm.toml:1: this is not valid TOML"),
        ("[llm]\nmodel='x'", "lm.toml:1: llm: there is no table of this name; did you mean 'lm'"),
        ("lm = 'openai/x'", "lm.toml:1: lm: must be a table"),
        ("[lm]\ntemperature = 1", "without a model"),
        ("[lm]\nmodel='openai/x'\ntemprature = 1", "lm.toml:3: lm.temprature: .* did you mean 'temperature'"),
        ("[lm]\nmodel='openai/x'\napi_key_env='NOT_SET'", "lm.toml:3: .* NOT_SET is not set"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "lm.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        read_settings(file=read_config(file, {}), environ={}, dotenv=tmp_path / ".env")


def test_a_command_that_takes_the_lm_alone_needs_no_secret_of_the_server(tmp_path: Path) -> None:
    file = tmp_path / "dspy-live.toml"
    file.write_text('[lm]\nmodel = "openai/x"\n[keys.ada]\nenv = "NOT_SET"\n')
    assert read_config(file, {}, for_server=False).config.lm is not None
    with pytest.raises(ConfigurationError, match=r"dspy-live.toml:4: keys.ada.env: the variable NOT_SET is not set"):
        read_config(file, {})


def test_an_address_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="add --lm"):
        read_settings(api_base="http://127.0.0.1:1/v1", environ={}, dotenv=tmp_path / ".env")


def test_dotenv_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# a comment\n\nPLAIN=one two   # and a comment\nexport EXPORTED=x\nQUOTED=\"a # b\\nc\"\nSINGLE='a\\nb'\n"
        'EMPTY=\nSPACED = y\nnot a line\n1BAD=z\nHASH=a#b\nTAKEN=new\nOPEN="no end\nEQUALS=a=b\n'
    )
    environ = {"TAKEN": "old"}
    done = load_dotenv(path, environ)
    assert environ == {
        "TAKEN": "old",
        "PLAIN": "one two",
        "EXPORTED": "x",
        "QUOTED": "a # b\nc",
        "SINGLE": "a\\nb",
        "EMPTY": "",
        "SPACED": "y",
        "HASH": "a#b",
        "EQUALS": "a=b",
    }
    assert done == environ.keys() - {"TAKEN"}
    assert [record.args for record in caplog.records] == [(9,), (13,)], "the lines without a form are told"
    assert load_dotenv(tmp_path / "none", environ) == set()
    (tmp_path / "binary").write_bytes(b"\xff\xfe=\xff")
    with pytest.raises(ConfigurationError, match="can't read"):
        load_dotenv(tmp_path / "binary", environ)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model = 5", "lm.model: must be a text that is not empty; got 5"),
        ("api_base = []", "lm.api_base: must be a text"),
        ("api_key_env = 5", "lm.api_key_env: must be a text"),
        ('temperature = "hot"', 'lm.temperature: must be a number at least 0; got "hot"'),
        ("max_tokens = 0", "lm.max_tokens: must be a whole number at least 1; got 0"),
    ],
)
def test_a_setting_of_the_wrong_type_is_told(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "lm.toml"
    file.write_text(f"[lm]\n{line}\n")
    with pytest.raises(ConfigurationError, match=said):
        read_config(file, {})


def test_files_of_editors_that_begin_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DSPY_LIVE_API_KEY=k\n", "utf-8-sig")
    (tmp_path / "lm.toml").write_text('[lm]\nmodel = "openai/x"\n', "utf-8-sig")
    found = read_settings(file=read_config(tmp_path / "lm.toml"), environ={}, dotenv=tmp_path / ".env")
    assert (found.model, found.options["api_key"]) == ("openai/x", "k")
