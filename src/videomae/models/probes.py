"""Simple classifiers on features: nearest neighbours and logistic regression."""

from typing import Any

from numpy.typing import NDArray


def predict_knn(train: NDArray[Any], targets: NDArray[Any], test: NDArray[Any], *, k: int) -> NDArray[Any]:
    """Return the class that the k nearest of ``train`` (N, D) vote for, for each row of ``test`` (M, D)."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(k, len(train)), metric="cosine").fit(train, targets).predict(test)


def predict_linear(train: NDArray[Any], targets: NDArray[Any], test: NDArray[Any], *, c: float) -> NDArray[Any]:
    """Return what logistic regression on standardised features says, for each row of ``test`` (M, D)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(train, targets).predict(test)
