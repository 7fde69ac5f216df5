"""What gradient magnitude similarity (GMS) needs before a backend: masks, and the scales of MSGMS.

**GMS.** L = (a - b)^2/(a^2 + b^2 + c) at each position of each channel, with a and b the magnitudes
of the images' gradients under the 3 x 3 Prewitt operator: `reference.gms_dissimilarity`.

**MSGMS** is the mean of L over the scales. Scale 1 is the images themselves; each further scale
averages the previous one over 2 x 2 pixels. Along an odd side the last pixel is averaged alone:
pairing it with a 0 outside, as MS-SSIM does, would draw an edge into both images that hides
defects beside it.

| level   | loss                                                     |
|---------|----------------------------------------------------------|
| element | the mean over the scales of the mean of A(L) over elements |
| image   | A(mean of L over the scales), of each image              |
| batch   | A(mean of L over the scales), of the batch               |

**Masks.** A position counts where all pixels that its operator sees are unmasked, times the smallest
of their m; so a mask becomes a weight. With padding="zeros" a position whose operator reaches beyond
the image does not count. A halved pixel is masked where one of its four is. Masked pixels may hold
NaN.

Sources: Xue, Zhang, Mou, Bovik, "Gradient magnitude similarity deviation", IEEE TIP 23(2), 2014;
MSGMS: Zavrtanik, Kristan, Skocaj, "Reconstruction by inpainting for visual anomaly detection"
(RIAD), Pattern Recognition 112, 2021.
"""
