"""The version's files: that they are what was registered, that loading them runs nothing foreign, and that a worker can load them."""

from __future__ import annotations

from davy.core.digest import digest_bytes, digest_json
from davy.errors import CorruptData, DavyError, NotFound
from davy.gate.candidate import Candidate
from davy.gate.check import Check, Finding, failed, passed
from davy.serving.logged import refused_types
from davy.serving.unpickle import named_globals, refused_globals

_RESTORE = "Restore the file in the store from a backup, or train and register the version again."


def integrity(candidate: Candidate) -> Finding:
    version, found = candidate.version, {}
    for path, digest in version.files.items():
        try:
            found[path] = digest_bytes(candidate.home.blobs.get(digest))
        except (NotFound, CorruptData) as error:
            found[path] = error.came
    changed = [path for path, digest in version.files.items() if found[path] != digest]
    if changed:
        return failed(f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not what was registered.", fix=_RESTORE, registered=version.files,
                      found=found)
    content = {"format": version.format, "files": version.files, "signature": version.signature, "feature_set": version.feature_set}
    if digest_json(content) != version.digest:
        return failed("The registered format, files, signature and features do not have the version's digest.", fix=_RESTORE, registered=version.digest,
                      found=digest_json(content))
    features = candidate.feature_set(version)
    return passed(f"{len(found)} files, the signature and {len(features.outputs)} features have their digests.", files=version.files, digest=version.digest,
                  feature_set=features.digest)


def safe_format(candidate: Candidate) -> Finding:
    version = candidate.version
    if version.format == "pyfunc":
        return _arbitrary(candidate)
    if version.format == "skops":
        return _safe_skops(candidate)
    pickles = [path for path in version.files if path.endswith((".pkl", ".pickle", ".joblib"))]
    if not pickles:
        return passed(f"The format {version.format} holds data alone; loading it runs no code of the file's.", format=version.format)
    named: set[str] = set()
    for path in pickles:
        data = candidate.home.blobs.get(version.files[path])
        refused = refused_globals(data, candidate.home.config.serving.allow_globals)
        if refused:
            allowed = ", ".join(f'"{name}"' for name in refused)
            return failed(f"{path} names {', '.join(refused)}, which {'is' if len(refused) == 1 else 'are'} not on the allow-list.", refused=refused,
                          fix=f"If you wrote it and trust it, add it to davy.toml: [serving] allow_globals = [{allowed}]")
        named |= {f"{module}.{name}" for module, name in named_globals(data)}
    return passed(f"The pickle names {len(named)} things, all of them on the allow-list.", format=version.format, names=sorted(named))


def _arbitrary(candidate: Candidate) -> Finding:
    reference = candidate.version.reference
    if not candidate.home.config.serving.allow_pyfunc:
        return failed(f"{reference} can only be loaded by mlflow.pyfunc, which runs any code that the model brings.", format="pyfunc",
                      fix="If you trust whoever may register models, write in davy.toml: [serving] allow_pyfunc = true")
    return passed("mlflow.pyfunc runs any code that the model brings; [serving] allow_pyfunc allows that, in a process of its own.", format="pyfunc",
                  runs_any_code=True)


def _safe_skops(candidate: Candidate) -> Finding:
    for path in (path for path in candidate.version.files if path.endswith(".skops")):
        refused = refused_types(candidate.home.blobs.get(candidate.version.files[path]), candidate.home.config.serving.allow_globals)
        if refused:
            allowed = ", ".join(f'"{name}"' for name in refused)
            return failed(f"{path} holds {', '.join(refused)}, which {'is' if len(refused) == 1 else 'are'} not on the allow-list.", refused=refused,
                          fix=f"If you wrote it and trust it, add it to davy.toml: [serving] allow_globals = [{allowed}]")
    return passed("The skops file holds only types that skops or the allow-list trusts; what the model itself calls trusted counts for nothing.",
                  format="skops")


def loads(candidate: Candidate) -> Finding:
    reference = candidate.version.reference
    try:
        candidate.stand.route(candidate.version.version)
    except DavyError as error:
        return failed(f"{reference} can't be started: {error.came}", fix=error.fix, error=error.code, allowed=error.allowed)
    memory = candidate.stand.memory(candidate.version.version)
    return passed(f"A worker of its own has loaded {reference} and answered its warm-up.", memory_bytes=memory)


CHECKS = (
    Check("integrity", "Every file is what was registered, bit for bit", integrity, required=True),
    Check("safe-format", "Loading it can run nothing that is not on the allow-list", safe_format, required=True),
    Check("loads", "A serving worker loads it and answers its warm-up", loads, required=True),
)
