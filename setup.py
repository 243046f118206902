"""Packaging; the version stands here and nowhere else."""

from pathlib import Path

from setuptools import find_packages, setup

# The INT8 path uses two entry points of the converter that TensorFlow does not call public. They are tested on this
# release line; a later line is opened once the suite has passed on it.
TENSORFLOW = ["tensorflow>=2.21,<2.22", "tf-keras>=2.21,<2.22"]
DEMO = [*TENSORFLOW, "scikit-learn>=1.5", "matplotlib>=3.9"]
REPORT = ["jinja2>=3.1"]
FACTORIZE = ["tensorly>=0.9"]
MICRO = ["tflite-micro"]
ETHOS_U = ["ethos-u-vela>=5.2,<6"]
PEERS = ["tensorflow-model-optimization>=0.8.1", "ai-edge-quantizer>=0.10"]
BENCHMARK = [*DEMO, *REPORT, *FACTORIZE, *MICRO, *ETHOS_U, *PEERS]
TEST = [*BENCHMARK, "pytest>=8.3"]
LINT = ["ruff>=0.17,<0.18", "mypy>=2.4,<3", "import-linter>=2.16,<3"]

setup(
    name="tfcompress",
    version="0.1.0",
    description="Compress Keras models for phones and microcontrollers, and prove that the file computes the same.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["tfcompress", "tfcompress.*", "tflite_export", "tflite_export.*"]),
    package_data={
        "tfcompress": ["py.typed"],
        "tflite_export": ["py.typed", "bench/board/*", "bench/browser/*", "bench/templates/*"],
    },
    python_requires=">=3.10",
    # Reading, running and describing files: no TensorFlow.
    install_requires=["numpy>=1.26", "absl-py>=1.4", "rich>=13.9", "flatbuffers>=25.9", "ai-edge-litert>=2.3,<3"],
    extras_require={
        "tensorflow": TENSORFLOW,
        "demo": DEMO,
        "report": REPORT,
        "factorize": [*TENSORFLOW, *FACTORIZE],
        "micro": MICRO,
        "ethos-u": ETHOS_U,
        "benchmark": BENCHMARK,
        "test": TEST,
        "lint": LINT,
        # Release candidates of tokenizers 1 lack names that keras-hub imports.
        "dev": [*TEST, *LINT, "keras-hub>=0.32", "tokenizers<1"],
    },
    entry_points={
        "console_scripts": [
            "tfcompress = tfcompress.cli:main",
            "tflite-export = tflite_export.cli:main",
        ]
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
