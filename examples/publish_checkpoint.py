"""Show what publishing a checkpoint would send to the Hub: weights, configurations, the card, and the code they need.

python examples/publish_checkpoint.py model_cards/glee-tiny ORG/glee-tiny

Nothing is sent and no login is needed. To send it, call `lookhear.publishing.push(publication)`, or `lookhear
publish`.
"""

import argparse

from lookhear.publishing import gather


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="folder of the checkpoint, with a README.md")
    parser.add_argument("repo", help="repository on the Hub: ORG/NAME")
    options = parser.parse_args()

    publication = gather(options.folder, options.repo)  # raises ValueError if anything is missing or wrong
    for remark in publication.remarks:
        print(f"remark: {remark}")
    print(publication.listing(), end="")
    code = [file.path for file in publication.files if file.path.endswith(".py")]
    print(f"{len(code)} of these files are code, which people without lookhear load with trust_remote_code=True")


if __name__ == "__main__":
    main()
