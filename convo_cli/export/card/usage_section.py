"""Section of the model card that shows how to run the export."""

from __future__ import annotations

from convo_cli.export.card.base_model import described_base
from convo_cli.export.card.markdown import as_code
from convo_cli.export.format import About
from convo_cli.export.source import Source
from convo_cli.model.create import num_embeddings

_CLIENT = """\
### OpenAI's client

```sh
{server}
```

```python
from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused")
reply = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[{{"role": "user", "content": "Hello!"}}],
    max_tokens=64,
)
print(reply.choices[0].message.content)
```
"""


def usage(about: About, source: Source) -> str:
    """Return the section's text; foreign texts in it are escaped for their place."""
    encoder, model = source.generator.encoder, source.generator.model
    text = about.usage.format(
        # In a line of code a literal needs no quotes, and its escapes keep it on that line.
        stop=ascii(encoder.template.stop_tokens[0]),
        max_length=encoder.max_length,
        num_embeddings=num_embeddings(model),
        template=as_code(encoder.template.name),
        base=described_base(model),
    )
    if about.server is not None:
        server = about.server.format(max_length=encoder.max_length)
        text = f"{text.rstrip()}\n\n{_CLIENT.format(server=server)}"
    return text.strip()
