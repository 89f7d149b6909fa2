"""Finding the files of a hand-in, in the shapes in which students send them."""

import io
import json
import stat
import tarfile
import zipfile

import pytest

from assignment import ROOT, UTILS, VAE, VISUALIZE, archives, submission
from codebase.system.errors import UserError

SENT = ROOT / "tests" / "solutions" / "bare"
TEXTS = {UTILS: (SENT / "utils.py").read_text(), VAE: (SENT / "vae.py").read_text()}
EMPTY = "def sample_gaussian(m, v):\n    raise NotImplementedError('task 1')\n"


def zipped(files):
    """The content of a zip with these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def tarred(files, kind="gz"):
    """The content of a tar archive with these files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=f"w:{kind}") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def notebook(*cells):
    """The content of a notebook."""
    cells = [{"cell_type": "code", "source": cell.splitlines(True)} for cell in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# VAE"}, *cells]})


@pytest.fixture
def found(tmp_path):
    """Write the files of a hand-in into a folder, and find them again."""

    def found(files, **options):
        for name, content in files.items():
            path = tmp_path / "sent" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return submission.find([("", tmp_path / "sent")], **options)

    return found


@pytest.mark.parametrize(
    "names",
    [
        (UTILS, VAE),
        ("utils.py", "vae.py"),
        ("Jane's homework/final/codebase/utils.py", "Jane's homework/final/codebase/models/vae.py"),
        ("utils (1).py", "vae-2.py"),
        ("Utils.PY", "VAE_final.py.txt"),
        ("doejane_12345_67890_utils-1.py", "doejane_LATE_12345_67891_vae.py"),
    ],
)
@pytest.mark.parametrize("pack", [dict, zipped, tarred, lambda x: zipped({"in.zip": zipped(x)})])
def test_files_are_found_in_folders_and_archives(found, names, pack):
    files = pack(dict(zip(names, TEXTS.values(), strict=True)))
    if isinstance(files, bytes):
        files = {"HW.ZIP" if files.startswith(b"PK") else "hw.tar.gz": files}
    sent = found(files)
    assert sent.files == TEXTS
    assert "visualize.py" in sent.notes[0]  # It was not found.
    assert all(name in sent.notes[0] for name in names)


@pytest.mark.parametrize(
    "copy", ["__MACOSX/utils.py", "._utils.py", ".git/utils.py", "venv/lib/utils.py"]
)
def test_copies_and_libraries_are_passed_over(found, copy):
    sent = found({copy: "raise SystemExit", "hw.zip": zipped({copy: "raise SystemExit"}), **TEXTS})
    assert sent.files == TEXTS and len(sent.notes) == 1


def test_of_several_files_the_written_one_is_read(found):
    sent = found({UTILS: EMPTY, "new/utils-1.py": TEXTS[UTILS], "other/utils.py": "import os\n"})
    assert sent.files == {UTILS: TEXTS[UTILS]}
    assert f"not {UTILS}" in sent.notes[1]


def test_of_several_written_files_that_of_the_program_is_read(found):
    sent = found({UTILS: TEXTS[UTILS], "utils.py": TEXTS[UTILS].replace("sqrt", "exp")})
    assert sent.files == {UTILS: TEXTS[UTILS]}
    assert "not utils.py" in sent.notes[1]


def test_of_several_copies_the_newest_is_read(found):
    copies = {f"utils ({i}).py": f"{TEXTS[UTILS]}# {i}\n" for i in (2, 3, 1)}
    assert found(copies).files == {UTILS: copies["utils (3).py"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings_and_line_ends_are_read(found, encoding):
    text = f"# -*- coding: {encoding.replace('-sig', '')} -*-\n# Kühn\n" + TEXTS[UTILS]
    sent = found({"utils.py": text.replace("\n", "\r\n").encode(encoding)})
    assert sent.files[UTILS].partition("\n")[2] == text.partition("\n")[2]
    compile(sent.files[UTILS].encode(), "utils.py", "exec")


def test_a_notebook_is_read_without_magics_and_without_what_would_run(found):
    cells = [
        "%matplotlib inline\nimport torch\n!pip install x\nfrom torch import nn",
        "%%bash\nrm -r results",
        "SMALL = (1e-8\n    % 1)\nprint(SMALL)\nmodel = train()",
        "%%time\n@torch.jit.ignore\ndef sample_gaussian(m, v):\n    %time 1\n    return m + SMALL",
        "class VAE(nn.Module):\n    pass",
        "def bound(self, x):\n    return x",
        "VAE.negative_elbo_bound = bound",
        "for epoch in range(10):\n    model = train()",
        "A draft: def sample_gaussian(m, v)",
    ]
    sent = found({"solution.ipynb": notebook(*cells)})
    utils, vae = (sent.files[name] for name in (UTILS, VAE))
    lines = [line.strip() for line in utils.splitlines() if line.strip()]
    assert lines[:4] == ["import torch", "SMALL = (1e-8", "% 1)", "@torch.jit.ignore"]
    assert lines[4:] == ["def sample_gaussian(m, v):", "pass", "return m + SMALL"]
    space = {}
    exec(vae, space)
    assert space["VAE"].negative_elbo_bound(None, 3) == 3
    assert "train" not in vae


def test_files_that_a_notebook_writes_are_read(found):
    sent = found({"hw.ipynb": notebook(*(f"%%writefile {k}\n{v}" for k, v in TEXTS.items()))})
    assert sent.files == TEXTS


def test_an_exported_notebook_keeps_its_lines(found):
    text = "# In[1]:\nget_ipython().system('ls')\nimport torch\n\n\nrun()\n" + EMPTY
    sent = found({"utils.py": text})
    assert sent.files[UTILS].splitlines()[6] == "def sample_gaussian(m, v):"
    assert "run" not in sent.files[UTILS] and "ipython" not in sent.files[UTILS]


def test_a_notebook_completes_the_file_of_the_hand_out(found):
    given = EMPTY + "def kl_normal(qm, qv, pm, pv):\n    return qm\n"
    sent = found({UTILS: given, "hw.ipynb": notebook("def sample_gaussian(m, v):\n    return m")})
    space = {}
    exec(sent.files[UTILS], space)
    assert (space["sample_gaussian"](1, 2), space["kl_normal"](3, 0, 0, 0)) == (1, 3)


@pytest.mark.parametrize("folder", ["", "codebase/"])
def test_modules_that_are_imported_come_along(found, folder):
    files = {
        f"{folder}utils.py": "from . import mine\nfrom .maths import log\nimport torch\n" + EMPTY,
        f"{folder}mine.py": "from codebase.data import Images\nfrom codebase import deep\n",
        f"{folder}maths.py": "",
        f"{folder}deep-1.py": "X = 1\n",
        "pack/__init__.py": "",
        "pack/inner.py": "",
        VAE: "import pack.inner\n" + TEXTS[VAE],
        "codebase/data.py": (ROOT / "codebase/data.py").read_text(),
        "other.py": "",
    }
    sent = found(files)
    own = {f"codebase/{name}.py" for name in ("mine", "maths", "deep")}
    assert sent.files.keys() == {UTILS, VAE, *own, "pack/__init__.py", "pack/inner.py"}
    assert sent.files["codebase/deep.py"] == "X = 1\n"


def test_a_file_that_is_named_like_a_package_is_no_module_of_it(found):
    files = {VISUALIZE: "from codebase.pictures.drawing import show_grid\n", "pictures.py": ""}
    assert found(files).files.keys() == {VISUALIZE}


def test_a_changed_file_of_the_program_comes_along(found):
    drawing = "codebase/pictures/drawing.py"
    text = (ROOT / drawing).read_text() + "\ndef show_tiles(): pass\n"
    importing = "from codebase.pictures.drawing import show_tiles\n"
    assert found(files := {VISUALIZE: importing, drawing: text}).files == files


def test_models_of_runs_are_found(found):
    other, asked = "model=vae_batch_size=500_z=10_run=0001", "model=vae_z=10_run=0003"
    models = zipped({f"checkpoints/{name}/model-20000.pt": name for name in (other, asked)})
    sent = found({UTILS: TEXTS[UTILS], "hw.zip": models}, runs=True)
    assert (sent.runs.keys(), sent.run) == ({other, asked}, asked.encode())


def test_a_link_is_not_followed(tmp_path, found):
    (tmp_path / "secret.py").write_text("def sample_gaussian(m, v): return 0\n")
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "utils.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(UserError, match=" is a link"):
        found({})


def linked(name):
    """The content of an archive with a link in it."""
    content = io.BytesIO()
    if name.endswith(".zip"):
        link = zipfile.ZipInfo("vae.py")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr(link, "/etc/passwd")
    else:
        with tarfile.open(fileobj=content, mode="w") as archive:
            member = tarfile.TarInfo("vae.py")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    return content.getvalue()


nested = zipped(TEXTS)
for _ in range(archives.DEEPEST):
    nested = zipped({"in.zip": nested})
REFUSED = {
    "nested": ("hw.zip", nested, "inside"),
    "outside": ("hw.zip", zipped({"a/../../utils.py": TEXTS[UTILS]}), "out"),
    "absolute": ("hw.tar", tarred({"/etc/utils.py": TEXTS[UTILS]}, ""), "out"),
    "drive": ("hw.zip", zipped({"C:\\utils.py": TEXTS[UTILS]}), "out"),
    "link in a zip": ("hw.zip", linked("hw.zip"), "link"),
    "link in a tar": ("hw.tar", linked("hw.tar"), "link"),
    "part of a zip": ("hw.zip", zipped(TEXTS)[:100], "read"),
    "part of a tar": ("hw.tar.gz", tarred(TEXTS)[:100], "read"),
    "empty": ("hw.zip", b"", "read"),
    "PDF": ("hw.pdf", b"%PDF", "utils.py"),
    "deep JSON": ("hw.ipynb", b"[" * 100_000, "utils.py"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hand_in_that_cannot_be_read_is_refused_in_a_sentence(found, case):
    name, content, word = REFUSED[case]
    with pytest.raises(UserError) as error:
        found({name: content})
    assert word in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "pack"), [("hw.zip", zipped), ("hw.tgz", tarred)])
def test_an_archive_with_large_files_of_the_tasks_is_refused(found, monkeypatch, name, pack):
    monkeypatch.setattr(archives, "LARGEST", 10_000)
    with pytest.raises(UserError, match="large"):
        found({name: pack({"utils.py": "0" * 100_000})})
    assert found({name: pack({"data.bin": "0" * 100_000, **TEXTS})}).files == TEXTS


def test_a_file_that_is_not_python_is_left_to_the_check(found):
    assert found({"utils.py": "def sample_gaussian(m, v:\n"}).files[UTILS].startswith("def")
