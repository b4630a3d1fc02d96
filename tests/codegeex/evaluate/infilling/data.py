"""Holes of our own, in the formats of human-eval-infilling and SAFIM."""

import json

TEST = "def check(candidate):\n    assert candidate([3, 1]) == 2\n    assert candidate([]) == 0\n"
HUMANEVAL = [
    {
        "task_id": "SingleLineInfilling/HumanEval/0/L1",
        "entry_point": "spread",
        "prompt": "def spread(numbers):\n    if not numbers:\n        return 0\n",
        "suffix": "    return high - low\n",
        "canonical_solution": "    high, low = max(numbers), min(numbers)\n",
        "test": TEST,
    },
    {
        "task_id": "MultiLineInfilling/HumanEval/0/L0_L1",
        "entry_point": "spread",
        "prompt": "def spread(numbers):\n",
        "suffix": "    return max(numbers) - min(numbers)\n",
        "canonical_solution": "    if not numbers:\n        return 0\n",
        "test": TEST,
    },
    {
        "task_id": "RandomSpanInfilling/HumanEval/0/1",
        "entry_point": "spread",
        "prompt": "def spread(numbers):\n    return max(num",
        "suffix": "bers) if numbers else 0\n",
        "canonical_solution": "bers) - min(num",
        "test": TEST,
    },
]

_TASK = "Reads two numbers and writes their sum, and does so for as many lines as it is told.\n\n"
_CPP = """\
#include <iostream>
using namespace std;

int main() {
    int count, one, other;
    cin >> count;
    for (%s) {
        %s
    }
    return 0;
}
"""
_JAVA = """\
import java.util.Scanner;

public class Adder {
    public static void main(String[] arguments) {
        Scanner input = new Scanner(System.in);
        int count = input.nextInt();
        for (%s) {
            %s
        }
    }
}
"""
_PYTHON = """\
count = int(input())
for %s
    %s
print('', end='')
"""
_TESTS = [
    {"input": "2\n1 2\n3 4\n", "output": ["3\n7"], "exec_outcome": "PASSED"},
    {"input": "1\n-5 5\n", "output": ["nothing", "0\n"]},
]
_BODIES = {
    "python": (
        "_ in range(count):",
        "one, other = map(int, input().split())\n    print(one + other)",
    ),
    "cpp": (
        "int i = 0; i < count; i++",
        "cin >> one >> other;\n        cout << one + other << endl;",
    ),
    "java": (
        "int i = 0; i < count; i++",
        "int one = input.nextInt();\n            int other = input.nextInt();\n"
        "            System.out.println(one + other);",
    ),
}
_FRAMES = {"python": _PYTHON, "cpp": _CPP, "java": _JAVA}


def _rows(kind):
    for number, (lang, (head, body)) in enumerate(_BODIES.items()):
        place = "# TODO: Your code here" if lang == "python" else "/* TODO: Your code here */"
        frame = _FRAMES[lang]
        parts = (place, body) if kind == "control" else (head, place)
        holes = ("{{completion}}", body) if kind == "control" else (head, "{{completion}}")
        yield {
            "task_id": f"{kind}_completion_{number:06}",
            "lang": lang,
            "prompt": _TASK + frame % parts,
            "eval_prompt": frame % holes,
            "ground_truth": head if kind == "control" else body,
            "unit_tests": json.dumps(_TESTS) if lang == "python" else _TESTS,
        }


SAFIM = {
    "block": list(_rows("block")),
    "control": list(_rows("control")),
    "api": [
        {
            "task_id": "api_completion_000000",
            "lang": "python",
            "prompt": "import numpy as np\n\n# rows and columns\nones = # TODO: Your code here\n",
            "eval_prompt": "import numpy as np\n\n# rows and columns\nones = {{completion}}\n",
            "ground_truth": "np.full((3, 4), 1.0, dtype=float, order='C')",
            "unit_tests": "",
        }
    ],
}


def write(path, rows):
    """Writes rows as a .jsonl file and returns its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
