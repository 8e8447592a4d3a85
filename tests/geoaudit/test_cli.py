"""The command ``geoaudit``: words, exit codes, what it prints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from geoaudit import cli
from geoaudit.doctor import BACKENDS
from geoaudit.report.signing import PASSWORD
from tests.geoaudit.report.synthetic_run import make_run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
HAZE, EDGES = "f" * 40, "e" * 40


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("planted") / "run", units=16, side=6)


@pytest.fixture
def run(planted, tmp_path) -> Path:
    return shutil.copytree(planted, tmp_path / "run")


def geoaudit(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "geoaudit.cli", *map(str, words)], capture_output=True, text=True, check=False
    )


def decide(run: Path) -> None:
    """Let every check have decided, which the synthetic run's have not."""
    audit = json.loads((run / "audit.json").read_text())
    audit["checks"] = [{**check, "status": "pass"} for check in audit["checks"]]
    (run / "audit.json").write_text(json.dumps(audit))


def suppress(path: Path, *fingerprints: str, until: str = "2999-12-31") -> Path:
    path.write_text(
        yaml.safe_dump([{"fingerprint": f, "reason": "known", "by": "B", "until": until} for f in fingerprints])
    )
    return path


# The gate, from outside


def test_the_four_exit_codes_of_a_process(run, tmp_path):
    tripped = geoaudit("gate", run)
    assert (tripped.returncode, tripped.stderr) == (1, "")
    assert tripped.stdout.startswith("gate tripped: 1 finding of severity major or worse, first: Leans on haze")
    aside = suppress(tmp_path / "aside.yaml", HAZE)
    unsure = geoaudit("gate", "--suppressions", aside, run)
    assert (unsure.returncode, unsure.stdout) == (3, "gate inconclusive: geography, stripes could not decide\n")
    wrong = geoaudit("gate", run, "--baseline", tmp_path / "nothing.json")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("geoaudit: error: the baseline ")
    assert wrong.stderr.count("\n") == 1
    decide(run)
    clean = geoaudit("gate", run, f"--suppressions={aside}")
    assert (clean.returncode, clean.stdout) == (
        0,
        "gate passed: nothing new of severity major or worse; 1 finding set aside\n",
    )


def test_an_expired_suppression_trips_and_says_so(run, tmp_path, capsys):
    decide(run)
    assert (
        cli.main(["gate", str(run), "--suppressions", str(suppress(tmp_path / "s.yaml", HAZE, until="2020-01-31"))])
        == 1
    )
    said = capsys.readouterr().out
    assert "the suppression of F001 expired after 2020-01-31, set by B (known)" in said
    assert said.endswith("; the suppression of F001 has expired\n")


@pytest.fixture
def finished(monkeypatch):
    """Auditing takes minutes: the audit hands out a finished run; everything after it is the command's own."""
    import geoaudit.launch
    from geoaudit.audit import Audit
    from geoaudit.results import open_run

    def launch(config, out, *, resume=False, progress=None):
        results = open_run(out)
        return Audit(out, SimpleNamespace(neurons=results.neurons), (), (), results.audit)

    monkeypatch.setattr(geoaudit.launch, "launch", launch)


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("model: {checkpoint: m.ckpt}\nprobe: {class_path: a.B}\nlayers: [layer4]\n")
    return path


def test_audit_settles_before_it_reports_and_answers_with_the_gate(finished, run, config, tmp_path, capsys):
    words = ["audit", str(config), "--out", str(run), "--resume", "--formats", "sarif,junit"]
    assert cli.main(words) == 1
    assert "F001 critical Leans on haze when it decides residential: reliance +0.42" in capsys.readouterr().out
    decide(run)
    old = tmp_path / "old.json"
    old.write_bytes((run / "audit.json").read_bytes())
    assert cli.main([*words, "--baseline", str(old), "--fail-on", "minor"]) == 0
    said = capsys.readouterr().out
    assert "F001 critical Leans on haze when it decides residential (unchanged): " in said
    assert said.endswith("gate passed: nothing new of severity minor or worse; 2 findings known from the baseline\n")
    assert {r["baselineState"] for r in json.loads((run / "audit.sarif").read_text())["runs"][0]["results"]} == {
        "unchanged"
    }
    assert cli.main([*words, "--suppressions", str(suppress(tmp_path / "s.yaml", HAZE, "gone"))]) == 0
    said = capsys.readouterr().out
    assert "residential (set aside: known): reliance" in said
    assert "the suppression of gone (known) names no open finding" in said
    assert json.loads((run / "audit.json").read_text())["findings"][0]["status"] == "suppressed"
    assert "<failure" not in (run / "junit.xml").read_text().split("Leans on haze")[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "nowhere.yaml"], "the configuration nowhere.yaml cannot be read"),
        (["audit", "--config", "nowhere.yaml"], "the configuration nowhere.yaml cannot be read"),
        (["audit", "CONFIG", "--formats", "docx"], "no report format 'docx'"),
        (["audit", "CONFIG", "--baseline", "nowhere.json"], "the baseline nowhere.json"),
        (["audit", "CONFIG", "--suppressions", "nowhere.yaml"], "nowhere.yaml cannot be read as YAML"),
        (["report", "nowhere"], "nowhere is not a folder"),
        (["report", "nowhere", "--sign-key", "k.pem"], "add zip to --formats"),
        (["report", "nowhere", "--formats", "zip", "--sign-key", "k.pem"], "the key k.pem cannot be read"),
        (["verify", "nowhere.zip"], "nowhere.zip cannot be read as a bundle"),
        (["diff", "nowhere", "elsewhere"], "nowhere is not a folder"),
        (["gate", "nowhere"], "nowhere is not a folder"),
        (["dashboard", "nowhere"], "nowhere is not a folder"),
        (["demo", "--formats", "docx"], "no report format 'docx'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, message, config, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(config) if word == "CONFIG" else word for word in words]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("geoaudit: error: ")
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.yaml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reprot"], "invalid choice: 'reprot'"),
        (["report"], "run_dir"),
        (["diff", "a"], "run_b"),
        (["report", "a", "b"], "unrecognized arguments: b"),
        (["audit", "a", "--fail-on", "huge"], "fail_on"),
        (["audit", "a", "--formts", "pdf"], "did you mean --formats?"),
    ],
)
def test_a_misspelt_command_is_one_line_and_exit_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("geoaudit: error: ")
    assert message in told
    assert told.count("\n") == 1


def test_debug_shows_the_traceback():
    done = geoaudit("report", "nowhere", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_crash_does_not_look_like_a_tripped_gate(run, monkeypatch, capsys):
    def crash(*given):
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("geoaudit.gate.gate_run", crash)
    assert cli.main(["gate", str(run)]) == 2
    assert "RuntimeError: nobody foresaw this" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["audit", "--help"], ["verify", "--help"]])
def test_help_imports_little_so_that_it_is_quick(words):
    """Modules are counted, not seconds: a busy machine is slow at everything."""
    code = (
        "import sys\nfrom geoaudit.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "heavy = {'torch', 'pandas', 'sklearn', 'transformers', 'scipy', 'cryptography'} & set(sys.modules)\n"
        "print('heavy', sorted(heavy), 'modules', len(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("heavy [] modules ")
    assert int(last.split()[-1]) < 700


def test_the_script_is_called_geoaudit():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts["geoaudit"] == f"{cli.main.__module__}:{cli.main.__name__}"


# Reports, bundles, signatures, differences


def keys(folder: Path, password: bytes | None = None) -> tuple[Path, Path]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    locked = form.BestAvailableEncryption(password) if password else form.NoEncryption()
    folder.mkdir(exist_ok=True)
    private, public = folder / "key.pem", folder / "pub.pem"
    private.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_bundle_is_verified_and_its_signature_only_with_the_key(run, tmp_path, capsys):
    bundle = run / "audit.zip"
    private, public = keys(tmp_path / "ours")
    _, theirs = keys(tmp_path / "theirs")
    assert cli.main(["report", str(run), "--formats", "sarif,zip"]) == 0
    assert cli.main(["verify", str(bundle)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [str(run / "audit.sarif"), str(bundle)]
    assert said[2].startswith(f"{bundle}: intact, ")
    assert cli.main(["verify", str(bundle), "--public-key", str(public)]) == 1
    assert "audit.zip.sig is missing: the bundle is not signed" in capsys.readouterr().out

    assert cli.main(["report", str(run), "--formats", "zip,sarif", "--sign-key", str(private)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"{bundle}.sig"
    assert cli.main(["verify", str(bundle), "--public-key", str(public)]) == 0
    assert "intact, " in (told := capsys.readouterr().out)
    assert told.endswith(", signed by this key\n")
    assert cli.main(["verify", str(bundle)]) == 0
    assert "its signature was not checked" in capsys.readouterr().out
    assert cli.main(["verify", str(bundle), "--public-key", str(theirs)]) == 1
    assert "audit.zip.sig is not this key's signature of audit.zip" in capsys.readouterr().out

    # The key stays where it was: no file of the run and no word printed holds any line of it.
    secret = private.read_text().splitlines()[1].encode()
    assert not [path for path in run.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert secret.decode() not in said.out + said.err

    bundle.write_bytes(bundle.read_bytes() + b" ")
    assert cli.main(["verify", str(bundle), "--public-key", str(public)]) == 1
    (run / "audit.zip.sig").write_bytes(b"short")
    assert cli.main(["verify", str(bundle), "--public-key", str(public)]) == 1
    assert "has 5 bytes and not 64" in capsys.readouterr().out


def test_a_signature_outlives_the_same_bundle_only(run, tmp_path):
    private, _ = keys(tmp_path)
    signature = run / "audit.zip.sig"
    cli.main(["report", str(run), "--formats", "zip", "--sign-key", str(private)])
    first = signature.read_bytes()
    cli.main(["report", str(run), "--formats", "zip"])
    assert signature.read_bytes() == first
    cli.main(["report", str(run), "--formats", "junit,zip"])
    assert not signature.exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_reads_the_signature(run, tmp_path):
    private, public = keys(tmp_path)
    cli.main(["report", str(run), "--formats", "zip", "--sign-key", str(private)])
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", run / "audit.zip"]
    done = subprocess.run([*words, "-sigfile", run / "audit.zip.sig"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_wrong_keys_are_refused_in_one_sentence(run, tmp_path, monkeypatch, capsys):
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    monkeypatch.delenv(PASSWORD, raising=False)
    private, public = keys(tmp_path / "plain")
    locked, _ = keys(tmp_path / "locked", b"open sesame")
    other = ec.generate_private_key(ec.SECP256R1())
    curve, broken = tmp_path / "curve.pem", tmp_path / "broken.pem"
    curve.write_bytes(other.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    broken.write_text("-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----\n")

    def signed(key: Path) -> tuple[int, str]:
        code = cli.main(["report", str(run), "--formats", "zip", "--sign-key", str(key)])
        return code, capsys.readouterr().err

    for key, message in (
        (locked, "needs a password"), (curve, "is no Ed25519 key"), (broken, "is no private key"),
        (public, "is no private key"),
    ):  # fmt: skip
        code, told = signed(key)
        assert code == 2
        assert message in told
        assert "secretsecret" not in told
    monkeypatch.setenv(PASSWORD, "open sesame")
    assert signed(locked) == (0, "")
    assert "does not need a password" in signed(private)[1]
    monkeypatch.setenv(PASSWORD, "hocus pocus")
    assert f"{PASSWORD} is not its password" in (told := signed(locked)[1])
    assert "hocus" not in told
    assert cli.main(["verify", str(run / "audit.zip"), "--public-key", str(private)]) == 2
    assert "is no public key" in capsys.readouterr().err


def test_an_altered_bundle_is_exit_code_1_and_names_the_file(run, capsys):
    import zipfile

    cli.main(["report", str(run), "--formats", "sarif,zip"])
    with zipfile.ZipFile(run / "audit.zip") as old, zipfile.ZipFile(run / "other.zip", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) + (b" " if name == "audit.sarif" else b""))
    capsys.readouterr()
    assert cli.main(["verify", str(run / "other.zip")]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "audit.sarif was changed"


def test_runs_are_compared(run, planted, capsys):
    assert cli.main(["diff", str(planted), str(run)]) == 0
    assert "2 findings unchanged; 0 units labelled otherwise" in capsys.readouterr().out
    audit = json.loads((run / "audit.json").read_text())
    audit["findings"] = audit["findings"][1:]
    (run / "audit.json").write_text(json.dumps(audit))
    assert cli.main(["diff", str(planted), str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [finding["id"] for finding in found["gone"]] == ["F001"]
    assert found["new"] == []
    (run / "audit.json").unlink()
    assert cli.main(["diff", str(planted), str(run)]) == 3
    assert "! " in capsys.readouterr().out


def test_bare_words_may_stand_anywhere_and_names_work_too(run, planted, capsys):
    for words in (
        ["diff", "--json", planted, run],
        ["diff", planted, "--json", run],
        ["diff", "--run-b", run, planted, "--json"],
        ["diff", "--run_a", planted, "--run_b", run, "--json", "true"],
    ):
        assert cli.main([str(word) for word in words]) == 0
        assert json.loads(capsys.readouterr().out)["unchanged"] == 2


def test_a_reader_who_has_seen_enough_is_no_error(planted):
    command = f'"{sys.executable}" -m geoaudit.cli diff "{planted}" "{planted}" --json | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_checks_and_doctor_speak(capsys):
    assert cli.main(["checks"]) == 0
    assert "concept-reliance\n" in capsys.readouterr().out
    assert cli.main(["doctor"]) in (0, 3)
    said = capsys.readouterr().out
    assert all(title in said for title, *_ in BACKENDS)


# The documents
