"""What a version must show before it may take traffic. `davy.gate.run` runs the checks; `standing` says what the last run found."""

from davy.gate.record import Standing as Standing
from davy.gate.record import standing as standing
