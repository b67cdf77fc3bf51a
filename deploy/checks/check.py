"""Builds every overlay, holds it against the schemas of Kubernetes, looks for bad habits with checkov, and checks rules with promtool."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
TOOLS = DEPLOY.parent / ".tools"
BIN = TOOLS / "deploy" / "bin"
OVERLAYS = sorted(path.parent.name for path in DEPLOY.glob("overlays/*/kustomization.yaml"))

# The oldest minor that is supported, and the newest that there is a schema of. Both must take everything without a warning.
KUBERNETES = ["1.32", "1.37"]

# Kinds of others, whose schemas come with their operators and are not here.
FOREIGN = {
    "gateway.networking.k8s.io/v1/Gateway",
    "gateway.networking.k8s.io/v1/GRPCRoute",
    "gateway.networking.k8s.io/v1/HTTPRoute",
    "cert-manager.io/v1/Certificate",
    "postgresql.cnpg.io/v1/Cluster",
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "keda.sh/v1alpha1/ScaledObject",
}

# What checkov would have otherwise, and why it is as it is.
SKIPPED = {
    "CKV_K8S_11": "no limit on processor time: a throttled engine is late with its lease, a throttled gateway with every answer",
    "CKV_K8S_15": "a version's tag never changes what it names, so a pull at each start buys nothing but a dependency on the registry",
    "CKV_K8S_35": "the addresses of the stores hold their passwords, and the program takes addresses from its environment",
    "CKV_K8S_40": "the images of Redis and Postgres run as their own user 999; ours runs as 65532",
    "CKV_K8S_43": "a digest is known to who has built the image: `kustomize edit set image fulcrum=NAME@sha256:…` in the overlay",
    "CKV_DOCKER_2": "the kubelet probes pods; an image from scratch has nothing to ask with",
}


def run(*command, **kwargs):
    return subprocess.run([str(word) for word in command], text=True, capture_output=True, **kwargs)


def fail(what, told=""):
    sys.exit(f"deploy/check: {what}\n{told}".rstrip())


def build(overlay):
    built = run(BIN / "kubectl", "kustomize", DEPLOY / "overlays" / overlay)
    if built.returncode != 0 or built.stderr.strip():
        fail(f"the overlay {overlay} does not build, or not without warnings", built.stderr)
    return built.stdout, [it for it in yaml.safe_load_all(built.stdout) if it]


def validate(overlay, objects):
    wrong, foreign = [], 0
    for it in objects:
        name = f"{it['apiVersion']}/{it['kind']}"
        if name in FOREIGN:
            foreign += 1
            continue
        for minor in KUBERNETES:
            try:
                kubernetes_validate.validate(it, minor, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                wrong.append(f"{name} {it['metadata']['name']}: no such kind in {minor}")
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(step) for step in error.path)
                wrong.append(f"{name} {it['metadata']['name']} in {minor}: {where}: {error.message}")
    if wrong:
        fail(f"the overlay {overlay} is not valid", "\n".join(wrong))
    print(f"{overlay}: {len(objects) - foreign} objects valid for {' and '.join(KUBERNETES)}, {foreign} of other makers built only")


def habits(directory):
    skip = ["--skip-check", ",".join(SKIPPED)]
    common = ["--quiet", "--compact", "--skip-download", *skip]
    environment = {**os.environ, "LOG_LEVEL": "ERROR", "CHECKOV_RUN_SCA_PACKAGE_SCAN_V2": "false"}
    for framework, place in [("kubernetes", ["-d", directory]), ("dockerfile", ["-f", DEPLOY / "Containerfile"])]:
        looked = run(BIN / "checkov", *place, "--framework", framework, *common, env=environment)
        if looked.returncode != 0:
            fail(f"checkov ({framework}) has something against it", looked.stdout + looked.stderr)
    print(f"checkov: nothing found, {len(SKIPPED)} checks skipped for reasons given")


def promtool():
    found = shutil.which("promtool") or TOOLS / "prometheus" / "usr" / "bin" / "promtool"
    return found if pathlib.Path(found).exists() else None


def rules(directory):
    tool = promtool()
    if tool is None:
        print("NO PROMTOOL: THE RULES WERE NOT CHECKED. deploy/checks/setup installs it", file=sys.stderr)
        return
    plain = pathlib.Path(directory) / "rules.yaml"
    resource = yaml.safe_load((DEPLOY / "observability" / "rules.yaml").read_text())
    plain.write_text(yaml.safe_dump(resource["spec"], sort_keys=False))
    shutil.copy(DEPLOY / "observability" / "rules_test.yaml", directory)
    for words in [("check", "rules", "rules.yaml"), ("test", "rules", "rules_test.yaml")]:
        checked = run(tool, *words, cwd=directory)
        if checked.returncode != 0:
            fail(f"promtool {' '.join(words)}", checked.stdout + checked.stderr)
    count = sum(len(group["rules"]) for group in resource["spec"]["groups"])
    print(f"promtool: {count} rules valid, and their tests pass")


def main(arguments):
    if arguments[:1] == ["--json"]:
        _, objects = build(arguments[1])
        json.dump(objects, sys.stdout, default=str)
        return
    if arguments:
        fail("usage: deploy/check [--json OVERLAY]")
    with tempfile.TemporaryDirectory() as directory:
        for overlay in OVERLAYS:
            text, objects = build(overlay)
            validate(overlay, objects)
            (pathlib.Path(directory) / f"{overlay}.yaml").write_text(text)
        habits(directory)
        rules(directory)


main(sys.argv[1:])
