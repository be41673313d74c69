# %% [markdown]
# # Export and serve
#
# A model as a file for another runtime, compared with its source before it is kept; and behind HTTP. Needs the extras
# `onnx` and `serve`.

# %%
import json
import re
import subprocess
import sys
import urllib.request

from videomae import VideoClassifier, read_manifest
from videomae.export.run import export

video = read_manifest("quickstart/videos.csv").split("test").samples[0].file
done = export("quickstart/run/model", "onnx", "exported", allow_slower=True)
for row in done.verification.rows():
    print(row)

# %% [markdown]
# The file takes 8-bit frames, and knows its classes and which frames make a clip. ONNX Runtime runs it without PyTorch.

# %%
for engine, place in (("torch", "quickstart/run/model"), ("onnx", "exported")):
    best = VideoClassifier.from_pretrained(place, engine=engine, device="cpu")(video, top_k=1)[0]
    print(f"{engine}: {best.label} {best.score:.4f}")

# %% [markdown]
# ## Serve
#
# In a terminal it is `videomae serve quickstart/run/model`; the page is at http://127.0.0.1:8000. Here another process
# serves, is asked once, and ended. `--port 0` takes a port that is free.

# %%
command = [sys.executable, "-P", "-m", "videomae", "serve", "quickstart/run/model", "--port", "0", "--device", "cpu"]
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    try:
        said = next(line for line in server.stderr if "is served at" in line)
        address = re.search(r"http://\S+", said)[0]
        with urllib.request.urlopen(urllib.request.Request(address, video.read_bytes(), method="POST")) as response:
            answer = json.load(response)
        print(answer[:2])
    finally:
        server.terminate()
