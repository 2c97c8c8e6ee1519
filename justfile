# The steps of CI, by name. Each is `.ci/run STEP`, which says what it does.

# Everything CI runs.
all:
    .ci/run

# The lock file is current, and everything in it is here.
lock:
    .ci/run lock

fmt:
    .ci/run fmt

clippy:
    .ci/run clippy

# Unit, integration and doc tests: the README's own command.
test:
    .ci/run test

docs:
    .ci/run docs

# Every program in examples/ runs and exits with 0.
examples:
    .ci/run examples

# Every crate without its default features, and with each feature alone.
features:
    .ci/run features

# Dependencies: banned crates, licences, sources.
deny:
    .ci/run deny

package:
    .ci/run package

# Writes the generated code anew, after a change in proto/.
generate:
    UPDATE_GENERATED=1 cargo test -p tower-plugins-proto --test main generated_code_is_current

# Known vulnerabilities. Needs the advisory database, so CI does not run it.
advisories:
    cargo deny check advisories
