"""The points of Annex IV of Regulation (EU) 2024/1689 (the AI Act), in our own words, and what answers each.

`missing` is what no evidence can say and a person must write; it is empty where the evidence is the whole answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tasks.exports import blocks
from tasks.exports.blocks import Block
from tasks.exports.making import Making


@dataclass(frozen=True)
class Point:
    """One thing that the technical documentation must hold."""

    number: str
    """`2(d)`."""
    title: str
    asks: str
    known: Callable[[Making], Iterable[Block]]
    missing: str


@dataclass(frozen=True)
class Section:
    """One of the nine points of the annex."""

    number: str
    title: str
    points: tuple[Point, ...]


SECTIONS = (
    Section(
        "1",
        "General description",
        (
            Point(
                "1(a)",
                "Purpose, provider, version",
                "What the system is meant for, who provides it, and how this version stands to those before it.",
                blocks.identity,
                "The intended purpose and the provider's name and address.",
            ),
            Point(
                "1(b)",
                "Interaction with other systems",
                "How it works, or can be made to work, with hardware, software and other AI systems that are "
                "not part of it.",
                blocks.nothing,
                "The systems it is joined to and how.",
            ),
            Point(
                "1(c)",
                "Software and firmware",
                "Versions of the software it needs, and what updating them requires.",
                blocks.software,
                "Versions that serving the model needs, and the rules for updating them.",
            ),
            Point(
                "1(d)",
                "Forms in which it is supplied",
                "Every form in which it reaches the market or is put into service: packages, downloads, interfaces.",
                blocks.files,
                "How these files are distributed or served.",
            ),
            Point(
                "1(e)",
                "Hardware to run on",
                "The hardware that the system is meant to run on.",
                blocks.nothing,
                "The intended hardware. Under 2(c) stands what it was made on.",
            ),
            Point(
                "1(f)",
                "Where it is part of a product",
                "Pictures of the product's outside, its marking and its inner layout.",
                blocks.nothing,
                "Photographs or drawings, or that the model is part of no product.",
            ),
            Point(
                "1(g)",
                "User interface",
                "A basic description of what the deployer is given to operate it.",
                blocks.nothing,
                "The interface given to the deployer.",
            ),
            Point(
                "1(h)",
                "Instructions for use",
                "Instructions for the deployer, with a description of the interface.",
                blocks.nothing,
                "The instructions for use.",
            ),
        ),
    ),
    Section(
        "2",
        "Elements of the system and how it was developed",
        (
            Point(
                "2(a)",
                "Methods and steps of development",
                "What was done to make it, and where pre-trained systems or tools of third parties were used, "
                "joined in or modified.",
                blocks.development,
                "Why these methods were chosen, where the recipe departs from its defaults.",
            ),
            Point(
                "2(b)",
                "Design: logic, choices, optimisation",
                "The general logic, the main choices with their reasons and assumptions, whom it is meant "
                "for, what it optimises, what its parameters weigh, the output and quality expected, and what "
                "was traded off.",
                blocks.design,
                "Reasons and assumptions behind the choices, the persons or groups it is meant for, the "
                "trade-offs made.",
            ),
            Point(
                "2(c)",
                "Architecture and computing resources",
                "How its parts build on one another, and the resources spent on developing, training, testing "
                "and validating it.",
                blocks.architecture,
                "How the model is built into the system around it.",
            ),
            Point(
                "2(d)",
                "Data",
                "Data sheets: how and on what it was trained, where the data came from, how they were "
                "obtained, selected, labelled and cleaned.",
                blocks.data,
                "How labels and gold answers were made by the data's own authors; the scope and main "
                "characteristics of the data with a view to the purpose; personal data, if any.",
            ),
            Point(
                "2(e)",
                "Human oversight: assessment",
                "Which oversight by people is needed (Article 14), and the technical means that help "
                "deployers to interpret the output.",
                blocks.nothing,
                "The assessment of oversight measures.",
            ),
            Point(
                "2(f)",
                "Changes decided in advance",
                "Changes of the system and its performance that are foreseen, and how compliance is kept through them.",
                blocks.nothing,
                "What scheduled retraining may change, within which limits, and what happens beyond them.",
            ),
            Point(
                "2(g)",
                "Validation and testing",
                "Procedures and data of validation and testing, measures of accuracy, robustness and other "
                "requirements and of possible discrimination, test logs and reports, dated and signed.",
                blocks.testing,
                "Tests of robustness and of discriminatory effects, and the signed reports of the persons responsible.",
            ),
            Point(
                "2(h)",
                "Cybersecurity",
                "The measures that were put in place.",
                blocks.security,
                "Protection of the system in operation: access, hardening, answers to prompts meant to harm.",
            ),
        ),
    ),
    Section(
        "3",
        "Monitoring, functioning and control",
        (
            Point(
                "3, accuracy",
                "Capabilities and limits",
                "What it can and cannot do, its accuracy overall and for the persons or groups it is meant for.",
                blocks.figures,
                "Accuracy for particular persons or groups, and the accuracy to be expected for the purpose.",
            ),
            Point(
                "3, outcomes",
                "Foreseeable unintended outcomes",
                "Sources of risk to health and safety, fundamental rights and of discrimination.",
                blocks.nothing,
                "The outcomes that can be foreseen, and their risks.",
            ),
            Point(
                "3, oversight",
                "Human oversight measures",
                "The measures needed (Article 14), with the technical means to interpret the output.",
                blocks.nothing,
                "The measures.",
            ),
            Point(
                "3, inputs",
                "Specifications of input data",
                "What input data must be like, where that applies.",
                blocks.nothing,
                "The specification of input data.",
            ),
        ),
    ),
    Section(
        "4",
        "Appropriateness of the performance metrics",
        (
            Point(
                "4",
                "Why these metrics",
                "Why the metrics fit this system.",
                blocks.figures,
                "Why pass@1 (the mean share of right answers over sampled completions, with an interval over "
                "problems) and the rates beside it fit the purpose, and what they do not show.",
            ),
        ),
    ),
    Section(
        "5",
        "Risk management",
        (
            Point(
                "5",
                "Risk management system",
                "The system kept under Article 9.",
                blocks.nothing,
                "The risk management system.",
            ),
        ),
    ),
    Section(
        "6",
        "Changes through the lifecycle",
        (
            Point(
                "6",
                "Relevant changes",
                "What the provider changed in the course of the system's life.",
                blocks.changes,
                "What the changes mean for compliance.",
            ),
        ),
    ),
    Section(
        "7",
        "Standards",
        (
            Point(
                "7",
                "Harmonised standards, or what was done instead",
                "Harmonised standards applied in full or in part; where none are, how the requirements of "
                "Chapter III, Section 2 are met, with other standards and technical specifications.",
                blocks.formats,
                "The harmonised standards applied, or the solutions adopted in their place.",
            ),
        ),
    ),
    Section(
        "8",
        "EU declaration of conformity",
        (
            Point(
                "8",
                "Copy of the declaration",
                "The declaration under Article 47.",
                blocks.nothing,
                "The declaration of conformity.",
            ),
        ),
    ),
    Section(
        "9",
        "After it is on the market",
        (
            Point(
                "9",
                "Post-market monitoring",
                "How performance is evaluated after placing on the market (Article 72), with the monitoring plan.",
                blocks.nothing,
                "The post-market monitoring system and plan.",
            ),
        ),
    ),
)
