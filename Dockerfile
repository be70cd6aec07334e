# The server, the Space or the demo, in the tested versions, as an ordinary user; docs/guides/serving.md shows how.
FROM python:3.12-slim

# uid 1000 is what Spaces run as, too.
RUN useradd --create-home --uid 1000 lookhear
WORKDIR /home/lookhear/app

COPY . .
# Another index, such as PyTorch's for CPUs alone: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[all]'

# Results and made examples go to places that the user may write to.
RUN mkdir /home/lookhear/work && chown lookhear:lookhear /home/lookhear/work
USER lookhear
WORKDIR /home/lookhear/work
ENV GRADIO_SERVER_NAME=0.0.0.0 LOOKHEAR_SPACE_EXAMPLES=/home/lookhear/work/examples
EXPOSE 8000 7860

CMD ["lookhear", "serve", "--host", "0.0.0.0"]
