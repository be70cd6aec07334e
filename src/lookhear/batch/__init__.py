"""Many clips and pictures on Ray Data, on one machine or on a cluster: `pip install 'lookhear[ray]'`.

```python
import ray
from lookhear import batch

clips = ray.data.from_items([{"path": "a.mp4"}, {"path": "b.mp4"}])
print(batch.transcribe(clips, output="transcripts"))
```
"""

from .objects import perceive
from .shards import prepare
from .speech import transcribe
from .stages import BatchSummary

__all__ = ["BatchSummary", "perceive", "prepare", "transcribe"]
